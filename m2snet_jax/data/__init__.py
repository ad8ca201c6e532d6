"""Where examples come from: datasets, augmentation, and the pipeline that feeds the devices."""
