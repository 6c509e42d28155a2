//! Whole-slide images through OpenSlide: regions at any microns per pixel, tissue, pyramid writing
