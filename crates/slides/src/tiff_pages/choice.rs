//! Which page of a TIFF file is the slide, and which are its levels.

use super::page::Page;
use crate::geometry::Extent;
use crate::warning::SlideWarning;

/// The pages that make up the slide, and what of the file is not shown.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) slide: &'a Page,
    /// Smaller versions, finest first.
    pub(crate) smaller: Vec<&'a Page>,
    pub(crate) warnings: Vec<SlideWarning>,
}

/// Takes the largest page that has the shape of `first`, and its smaller versions.
///
/// `first` is the page that a reader of one page would show: OpenSlide's, or the first in tiles, or the first.
pub(crate) fn choose<'a>(pages: &'a [Page], first: &'a Page) -> Choice<'a> {
    let extent = first.extent();
    let mut slide = first;
    for page in pages.iter().filter(|page| !page.is_mask) {
        if area(page) > area(slide) && are_alike(page.extent(), extent) {
            slide = page;
        }
    }
    let mut smaller: Vec<&Page> = pages
        .iter()
        .filter(|page| {
            page.is_reduced
                && page.is_tiled
                && !page.is_mask
                && area(page) < area(slide)
                && are_alike(page.extent(), slide.extent())
                && page.samples == slide.samples
                && page.is_gray() == slide.is_gray()
        })
        .collect();
    smaller.sort_by_key(|page| std::cmp::Reverse(area(page)));
    smaller.dedup_by_key(|page| page.extent());
    let mut warnings = Vec::new();
    if slide.index != 0 {
        warnings.push(SlideWarning::OtherPage {
            page: slide.index,
            pages: pages.len(),
            extent: slide.extent(),
        });
    }
    let others = pages
        .iter()
        .filter(|page| !page.is_mask && page.index != slide.index && area(page) >= area(slide));
    let others: Vec<usize> = others.map(|page| page.index).collect();
    if !others.is_empty() {
        warnings.push(SlideWarning::PagesPassedOver {
            taken: slide.index,
            pages: others,
        });
    }
    warnings.extend(passed_over(slide));
    Choice {
        slide,
        smaller,
        warnings,
    }
}

/// The warning of a page with samples that are not shown.
pub(crate) fn passed_over(page: &Page) -> Option<SlideWarning> {
    let samples = page.passed_over();
    (samples > 0).then_some(SlideWarning::SamplesPassedOver {
        page: page.index,
        samples,
    })
}

fn area(page: &Page) -> u64 {
    page.stored.height.saturating_mul(page.stored.width)
}

/// Whether one is a reduction of the other, to the pixel.
fn are_alike(a: Extent, b: Extent) -> bool {
    let area = |extent: Extent| u128::from(extent.height) * u128::from(extent.width);
    let (large, small) = if area(a) < area(b) { (b, a) } else { (a, b) };
    // The smaller one's side, from its other side and the larger one's shape, is off by one at most.
    let is_near = |large_side: u64, large_other: u64, side: u64, other: u64| {
        let expected = u128::from(large_side) * u128::from(other);
        expected.abs_diff(u128::from(side) * u128::from(large_other)) <= u128::from(large_other)
    };
    is_near(large.height, large.width, small.height, small.width)
        || is_near(large.width, large.height, small.width, small.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_are_alike_to_the_pixel() {
        let size = |height, width| Extent { height, width };
        for (a, b, expected) in [
            (size(2967, 2220), size(741, 555), true),
            (size(2967, 2220), size(46, 35), true),
            (size(100, 100), size(100, 100), true),
            (size(3000, 4000), size(300, 300), false),
            (size(3000, 4000), size(4000, 3000), false),
            // A long strip whose short side rounds to one.
            (size(3, 5000), size(1, 1250), true),
        ] {
            assert_eq!(are_alike(a, b), expected, "{a} {b}");
            assert_eq!(are_alike(b, a), expected, "{b} {a}");
        }
    }
}
