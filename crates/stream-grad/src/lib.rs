//! Train convolutional networks on images of any size: exact gradients, tile by tile, on Candle tensors
