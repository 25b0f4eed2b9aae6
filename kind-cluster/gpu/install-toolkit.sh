#!/usr/bin/env bash
# With GPU=real, runs in the node: gives its containers access to the node's GPUs, like NVIDIA/nvkind.
set -euo pipefail
if ! command -v nvidia-ctk >/dev/null; then
    packages=https://nvidia.github.io/libnvidia-container
    keyring=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg
    apt-get update
    apt-get install --yes gpg
    curl --fail --silent --show-error --location "$packages/gpgkey" | gpg --dearmor --yes --output "$keyring"
    curl --fail --silent --show-error --location "$packages/stable/deb/nvidia-container-toolkit.list" |
        sed "s#deb https://#deb [signed-by=$keyring] https://#" >/etc/apt/sources.list.d/nvidia.list
    apt-get update
    apt-get install --yes nvidia-container-toolkit
fi
nvidia-ctk runtime configure --runtime=containerd --config-source=file --set-as-default
systemctl restart containerd
