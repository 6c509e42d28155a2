//! Reference networks for gradient streaming, with torchvision weight names
