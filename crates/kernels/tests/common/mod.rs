//! What the tests share: pseudo-random values, poisoned buffers and comparisons.
#![allow(dead_code, reason = "each test binary uses its part")]

use stream_grad_kernels::oracle::Plane;
use stream_grad_kernels::{Element, PerAxis, Rect, Span, Storage, View, ViewMut};

/// What fills memory that a kernel must neither read nor write.
pub(crate) const POISONS: [f64; 3] = [f64::NAN, 1e30, -1e30];

/// A reproducible stream of values in [-1, 1) that `f32` holds exactly.
pub(crate) struct Values(u64);

impl Values {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(crate) fn next(&mut self) -> f64 {
        let bits = u32::try_from(self.bits() >> 41).unwrap();
        f64::from(bits) / f64::from(1 << 22) - 1.0
    }

    pub(crate) fn many(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.next()).collect()
    }

    pub(crate) fn plane(&mut self, height: usize, width: usize, channels: usize) -> Plane {
        Plane::from_fn(height, width, channels, |_, _, _| self.next())
    }
}

/// The nearest number that is stored.
pub(crate) fn rounded<E: Storage>(value: f64) -> E {
    E::narrow(E::Compute::from_f64(value))
}

pub(crate) fn cast<E: Storage>(values: &[f64]) -> Vec<E> {
    values.iter().map(|&value| rounded(value)).collect()
}

/// The plane of which a buffer holds every value as it is.
pub(crate) fn stored<E: Storage>(plane: &Plane) -> Plane {
    let values = plane.data.iter();
    Plane {
        data: values
            .map(|&value| rounded::<E>(value).widen().to_f64())
            .collect(),
        ..*plane
    }
}

/// An extent or a distance as coordinates have it.
pub(crate) fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap()
}

/// `height` x `width` pixels from (0, 0) on.
pub(crate) fn whole(height: usize, width: usize) -> Rect {
    Rect::new(Span::new(0, signed(height)), Span::new(0, signed(width)))
}

/// The same rectangle elsewhere.
pub(crate) fn moved(rect: Rect, rows: i64, columns: i64) -> Rect {
    rect.translate(PerAxis::new(rows, columns)).unwrap()
}

/// A buffer that holds a plane somewhere inside, and poison around it.
#[derive(Clone)]
pub(crate) struct Buffer<E> {
    pub(crate) data: Vec<E>,
    /// All that it holds.
    held: Rect,
    /// The plane inside.
    rect: Rect,
    channels: usize,
}

impl<E: Storage> Buffer<E> {
    /// `plane` with `margins` (top, left, bottom, right) of poison.
    pub(crate) fn around(plane: &Plane, margins: [usize; 4], poison: f64) -> Self {
        let [top, left, bottom, right] = margins;
        let rect = plane.rect();
        let [above, before, below, after] = margins.map(signed);
        let held = Rect::new(
            Span::new(rect.rows.lo - above, rect.rows.hi + below),
            Span::new(rect.columns.lo - before, rect.columns.hi + after),
        );
        let (height, width) = (plane.height + top + bottom, plane.width + left + right);
        let mut data = vec![rounded::<E>(poison); height * width * plane.channels];
        for row in 0..plane.height {
            for column in 0..plane.width {
                for channel in 0..plane.channels {
                    let to = ((top + row) * width + left + column) * plane.channels + channel;
                    data[to] = rounded(plane.get(row, column, channel));
                }
            }
        }
        Self {
            data,
            held,
            rect,
            channels: plane.channels,
        }
    }

    pub(crate) fn exact(plane: &Plane) -> Self {
        Self::around(plane, [0; 4], f64::NAN)
    }

    /// All of it, poison included.
    pub(crate) fn all(&self) -> View<'_, E> {
        View::new(&self.data, self.held, self.channels).unwrap()
    }

    /// The plane inside.
    pub(crate) fn view(&self) -> View<'_, E> {
        self.all().part(self.rect).unwrap()
    }

    /// The plane inside, to write.
    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, E> {
        let all = ViewMut::new(&mut self.data, self.held, self.channels).unwrap();
        all.part(self.rect).unwrap()
    }

    /// The values of the plane inside.
    pub(crate) fn plane(&self) -> Plane {
        Plane::from_view(self.view())
    }

    /// Asserts that everything around the plane still is poison.
    pub(crate) fn assert_poison_kept(&self, poison: f64) {
        let poison = rounded::<E>(poison).widen().to_f64().to_bits();
        for row in self.held.rows.lo..self.held.rows.hi {
            for column in self.held.columns.lo..self.held.columns.hi {
                let inside = !self.view().pixel(row, column).is_empty();
                for value in self.all().pixel(row, column) {
                    assert!(
                        inside || value.widen().to_f64().to_bits() == poison,
                        "wrote {value} outside the view at ({row}, {column})"
                    );
                }
            }
        }
    }
}

pub(crate) fn bits<E: Storage>(values: &[E]) -> Vec<u64> {
    values
        .iter()
        .map(|value| value.widen().to_f64().to_bits())
        .collect()
}

/// Largest error relative to the largest magnitude expected, at least 1.
pub(crate) fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    error_beyond(0.0, found, expected)
}

/// The same of what is left of each error when a rounding of the value is taken off, as it is stored.
pub(crate) fn error_beyond_rounding<E: Storage>(found: &[f64], expected: &[f64]) -> f64 {
    error_beyond(rounding::<E>(), found, expected)
}

/// The same of what is left of each error when so much of the value is taken off.
pub(crate) fn error_beyond(share: f64, found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1.0_f64, |scale, x| scale.max(x.abs()));
    let mut worst = 0.0_f64;
    for (found, expected) in found.iter().zip(expected) {
        let difference = (found - expected).abs();
        assert!(!difference.is_nan(), "found {found}, expected {expected}");
        worst = worst.max((difference - share * expected.abs()) / scale);
    }
    worst
}

/// Relative L2 error.
pub(crate) fn l2_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square: f64 = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let scale: f64 = expected.iter().map(|x| x * x).sum();
    (square / scale.max(f64::MIN_POSITIVE)).sqrt()
}

/// What rounding a value once, to store it, may change of it: half a unit of the last of eight binary places, and nothing where
/// values are stored as they are computed.
pub(crate) fn rounding<E: Storage>() -> f64 {
    if size_of::<E>() == size_of::<E::Compute>() {
        0.0
    } else {
        2.0_f64.powi(-8)
    }
}

/// Rounding error that sums of a few thousand terms may show, and that of storing them.
pub(crate) fn tolerance<E: Storage>() -> f64 {
    let computing = if size_of::<E::Compute>() == 4 {
        4e-6
    } else {
        1e-13
    };
    computing + rounding::<E>()
}

/// Stack of a thread: the MiB that a task takes at most, and some for who calls it.
const STACK_BYTES: usize = 5 << 18;

/// Runs `work` on one and on two threads, and returns both results.
pub(crate) fn on_one_and_two_threads<R: Send>(work: impl Fn() -> R + Sync) -> [R; 2] {
    [1, 2].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK_BYTES)
            .build()
            .unwrap();
        pool.install(&work)
    })
}
