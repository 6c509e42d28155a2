//! NHWC convolution, pooling and normalisation kernels on slices, with exact VJPs
