//! The rows of a front that a reader needs.

use stream_grad_tiling::{FrontPoint, Storage};

use crate::plan::Plan;

/// A recipe that no other beats, and whether it is the plan's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontRow {
    /// The recipe with its memory, time and cost.
    pub point: FrontPoint,
    /// Whether it is the one that was chosen.
    pub chosen: bool,
}

/// The recipes of a [front](crate::front) beside the one of `plan`, by rising memory: all of them, or at most `most` that
/// matter.
///
/// Those are, however small `most` is, the one of least memory, the one of most and the chosen one, and of the others the knees: where more memory begins to
/// bring less time. Of the recipes that are faster than all with less memory the one is dropped again and again that lies
/// nearest to the line between its neighbours, memory and time both in proportion. What is slower and saves arithmetic alone is
/// no knee.
///
/// ```
/// use stream_grad_engine::{ByteCount, Conv2d, NetworkBuilder, Plan, PlanRequest, front, front_rows};
/// # use stream_grad_engine::OwnedParameters;
/// # let mut own = OwnedParameters::new(0);
/// # let mut net = NetworkBuilder::new(3);
/// # let x = net.conv2d(net.input(), Conv2d::new(3, 8, 3).padding(1), "a", &mut own)?;
/// # let x = net.conv2d(x, Conv2d::new(8, 8, 3).padding(1), "b", &mut own)?;
/// # let net = net.build(vec![("features".into(), x)])?;
/// let request = PlanRequest::new(512, 512);
/// let plan = Plan::new(&net, request.clone().memory(ByteCount::mib(64)))?;
/// let front = front(&net, &request)?;
/// let rows = front_rows(&front, &plan, Some(6));
/// assert!(rows.len() <= 6 && rows.iter().filter(|row| row.chosen).count() == 1);
/// # Ok::<(), stream_grad_engine::StreamError>(())
/// ```
#[must_use]
pub fn front_rows(
    front: &[FrontPoint],
    plan: &impl AsRef<Plan>,
    most: Option<usize>,
) -> Vec<FrontRow> {
    let rows = with_chosen(front, plan.as_ref().front_point());
    match most {
        Some(most) => knees(rows, most),
        None => rows,
    }
}

/// The front with the chosen recipe marked; a budget may choose one that is not on it.
fn with_chosen(front: &[FrontPoint], chosen: FrontPoint) -> Vec<FrontRow> {
    let is_chosen =
        |point: &FrontPoint| point.recipe == chosen.recipe && point.storage == chosen.storage;
    let mut rows: Vec<FrontRow> = front
        .iter()
        .map(|point| FrontRow {
            point: point.clone(),
            chosen: is_chosen(point),
        })
        .collect();
    if !rows.iter().any(|row| row.chosen) {
        rows.push(FrontRow {
            point: chosen,
            chosen: true,
        });
    }
    rows.sort_by_key(|row| (row.point.peak.peak(), row.point.storage == Storage::File));
    rows
}

fn knees(rows: Vec<FrontRow>, most: usize) -> Vec<FrontRow> {
    let last = rows.len().saturating_sub(1);
    let mut fastest = None;
    let mut kept: Vec<FrontRow> = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let faster = fastest.is_none_or(|time| row.point.time < time);
        if faster {
            fastest = Some(row.point.time);
        }
        if faster || row.chosen || index == last {
            kept.push(row);
        }
    }
    while kept.len() > most {
        let flattest = (1..kept.len().saturating_sub(1))
            .filter(|&index| !kept[index].chosen)
            .min_by(|&a, &b| area(&kept, a).total_cmp(&area(&kept, b)));
        let Some(flattest) = flattest else {
            break;
        };
        kept.remove(flattest);
    }
    kept
}

/// Twice the area between a row and its neighbours, on logarithmic axes.
fn area(rows: &[FrontRow], index: usize) -> f64 {
    let place = |index: usize| {
        let FrontPoint { peak, time, .. } = &rows[index].point;
        let logarithm = |value: u128| (value.max(1) as f64).ln();
        (logarithm(peak.peak()), logarithm(time.0))
    };
    let (before, here, after) = (place(index - 1), place(index), place(index + 1));
    let (first, second) = (
        (here.0 - before.0, here.1 - before.1),
        (after.0 - before.0, after.1 - before.1),
    );
    (first.0 * second.1 - first.1 * second.0).abs()
}

#[cfg(test)]
mod tests {
    use stream_grad_tiling::{Cost, PeakBytes, PerAxis, Picoseconds, Recipe, Reuse, Weights};

    use super::*;

    /// Its tile's edge tells it from others.
    fn point(memory: u128, time: u128) -> FrontPoint {
        FrontPoint {
            recipe: Recipe {
                image: PerAxis::both(1000),
                output_block: PerAxis::both(1000),
                segments: 1,
                tile: PerAxis::both(u64::try_from(memory).unwrap()),
                stored: Vec::new(),
                reuse: Reuse::Nothing,
                weights: Weights::Held,
            },
            storage: Storage::Memory,
            peak: PeakBytes {
                forward: memory,
                ..PeakBytes::default()
            },
            cost: Cost::default(),
            time: Picoseconds(time),
        }
    }

    fn memories(rows: &[FrontRow]) -> Vec<u128> {
        rows.iter().map(|row| row.point.peak.peak()).collect()
    }

    /// Time halves as memory doubles to 400, and from there on hardly falls.
    fn front() -> Vec<FrontPoint> {
        let pairs = [
            (100, 8000),
            (141, 5657),
            (200, 4000),
            (283, 2828),
            (300, 2900), // slower than one of less memory: it saves arithmetic only
            (400, 2000),
            (566, 1990),
            (800, 1980),
            (1131, 1970),
            (1600, 1960),
        ];
        pairs.map(|(memory, time)| point(memory, time)).to_vec()
    }

    #[test]
    fn first_last_chosen_and_the_knee_are_left() {
        let chosen = point(800, 1980);
        let rows = with_chosen(&front(), chosen);
        assert_eq!(rows.len(), 10);
        let few = knees(rows.clone(), 4);
        assert_eq!(memories(&few), [100, 400, 800, 1600]);
        let chosen: Vec<bool> = few.iter().map(|row| row.chosen).collect();
        assert_eq!(chosen, [false, false, true, false]);
        // What saves arithmetic alone goes first, even where there is room.
        assert_eq!(knees(rows.clone(), 9).len(), 9);
        assert!(!memories(&knees(rows.clone(), 20)).contains(&300));
        // The three are never dropped.
        assert_eq!(memories(&knees(rows, 1)), [100, 800, 1600]);
    }

    #[test]
    fn a_choice_that_is_not_on_the_front_gets_a_row() {
        let rows = with_chosen(&front(), point(350, 2500));
        assert_eq!(memories(&rows)[5..7], [350, 400]);
        assert!(rows[5].chosen && rows.iter().filter(|row| row.chosen).count() == 1);
        assert!(memories(&knees(rows, 5)).contains(&350));
        let alone = with_chosen(&[], point(350, 2500));
        assert_eq!(knees(alone, 12).len(), 1);
    }
}
