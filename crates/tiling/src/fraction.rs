//! Exact fractions of counts.

use std::cmp::Ordering;
use std::fmt;

/// A fraction of two counts in lowest terms; the denominator is not zero.
///
/// ```
/// use stream_grad_tiling::Fraction;
/// let ratio = Fraction::new(8, 6);
/// assert_eq!((ratio.numerator(), ratio.denominator()), (4, 3));
/// assert_eq!(ratio.to_string(), "1.333");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction {
    numerator: u128,
    denominator: u128,
}

impl Fraction {
    /// `numerator / denominator` in lowest terms; a zero denominator counts as 1.
    pub fn new(numerator: u128, denominator: u128) -> Self {
        let denominator = denominator.max(1);
        let divisor = greatest_common_divisor(numerator, denominator);
        Self {
            numerator: numerator / divisor,
            denominator: denominator / divisor,
        }
    }

    /// The numerator in lowest terms.
    pub const fn numerator(self) -> u128 {
        self.numerator
    }

    /// The denominator in lowest terms.
    pub const fn denominator(self) -> u128 {
        self.denominator
    }

    /// The smallest whole number that is not less.
    pub const fn ceil(self) -> u128 {
        self.numerator.div_ceil(self.denominator)
    }

    /// The product; saturates where it cannot be represented.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let first = Self::new(self.numerator, other.denominator);
        let second = Self::new(other.numerator, self.denominator);
        Self::new(
            first.numerator.saturating_mul(second.numerator),
            first.denominator.saturating_mul(second.denominator),
        )
    }
}

impl Ord for Fraction {
    /// Compares the continued fractions, so that no product can overflow.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut a, mut b) = (*self, *other);
        let mut reversed = false;
        loop {
            let wholes = (a.numerator / a.denominator).cmp(&(b.numerator / b.denominator));
            let (rest_a, rest_b) = (a.numerator % a.denominator, b.numerator % b.denominator);
            let order = match wholes {
                Ordering::Equal if rest_a > 0 && rest_b > 0 => {
                    (a, b) = (
                        Self {
                            numerator: a.denominator,
                            denominator: rest_a,
                        },
                        Self {
                            numerator: b.denominator,
                            denominator: rest_b,
                        },
                    );
                    reversed = !reversed;
                    continue;
                }
                Ordering::Equal => rest_a.min(1).cmp(&rest_b.min(1)),
                unequal => unequal,
            };
            return if reversed { order.reverse() } else { order };
        }
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Fraction {
    /// Three decimals, rounded down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.numerator / self.denominator;
        let rest = self.numerator % self.denominator;
        // Three digits of long division; a denominator near u128::MAX is scaled down instead.
        let thousandths = match rest.checked_mul(1000) {
            Some(scaled) => scaled / self.denominator,
            None => rest / (self.denominator / 1000),
        };
        write!(f, "{whole}.{:03}", thousandths.min(999))
    }
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_agrees_with_cross_multiplication() {
        for a in 0..12 {
            for b in 1..12 {
                for c in 0..12 {
                    for d in 1..12 {
                        let expected = (a * d).cmp(&(c * b));
                        assert_eq!(Fraction::new(a, b).cmp(&Fraction::new(c, d)), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn huge_fractions_compare_and_print() {
        let big = Fraction::new(u128::MAX, u128::MAX - 1);
        assert!(big > Fraction::new(1, 1));
        assert_eq!(big.to_string(), "1.000");
        assert_eq!(Fraction::new(5, 0).to_string(), "5.000");
    }
}
