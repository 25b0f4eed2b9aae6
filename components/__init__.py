"""The pipeline's steps as KFP components: thin bodies over `brain_tumor`."""
