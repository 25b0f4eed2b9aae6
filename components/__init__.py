"""The pipeline's steps as KFP components: thin wrappers of `brain_tumor`."""
