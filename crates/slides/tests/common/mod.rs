//! What the tests of this crate share.

#![allow(dead_code, reason = "each test binary uses a part")]

mod assets;
pub(crate) mod corpus;
pub(crate) mod tiff_file;

pub(crate) use assets::asset;

/// A picture with fine and coarse structure, so that a shift by one pixel shows.
pub(crate) fn picture(height: usize, width: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut rgb = Vec::with_capacity(height * width * 3);
    for row in 0..height {
        for column in 0..width {
            for channel in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let wave = (row * (channel + 1) / 3 + column * 2 / (channel + 2)) % 200;
                rgb.push(u8::try_from(wave + usize::try_from(state % 40).unwrap()).unwrap());
            }
        }
    }
    rgb
}
