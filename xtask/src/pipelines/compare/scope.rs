//! Which runs a comparison consists of.

use stream_grad_cli::image_size::ImageSize;
use xtask::arguments::{CompareArguments, Skip};

use super::entry::{Contender, Entry, Own, Peer};
use super::step::Precision;
use super::targets::Sizes;
use stream_grad_cli::model;

/// Edge of the image of a rehearsal.
const QUICK_EDGE: u64 = 512;

/// An entry, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) entry: Entry,
    pub(crate) repeats: usize,
    /// Whether its gradients are compared with those in f64.
    pub(crate) error: bool,
}

/// All runs in their order: what a budget depends on comes before it.
pub(crate) fn runs(arguments: &CompareArguments) -> Vec<Run> {
    let repeats = arguments.repeats();
    let threads = model::threads(arguments.threads);
    let runs = if arguments.table {
        Sizes::of(arguments).runs(threads, repeats)
    } else {
        of_one_image(arguments, threads, repeats)
    };
    let is_rounded = |run: &Run| run.entry.precision == Precision::BF16;
    let skipped = |run: &Run| match run.entry.contender {
        _ if is_rounded(run) && arguments.skip.contains(&Skip::Bf16) => true,
        Contender::Own(_) => false,
        Contender::Peer(peer) => {
            let part = match peer {
                Peer::PlainPyTorch => Skip::Pytorch,
                Peer::ChannelsLast => Skip::ChannelsLast,
                Peer::Checkpointing => Skip::Checkpoint,
                Peer::Lightstream { .. } => Skip::Lightstream,
            };
            arguments.skip.contains(&part) || arguments.skip.contains(&Skip::Python)
        }
    };
    let mut runs: Vec<Run> = runs.into_iter().filter(|run| !skipped(run)).collect();
    if arguments.skip.contains(&Skip::Error) {
        runs.iter_mut().for_each(|run| run.error = false);
    }
    runs
}

fn of_one_image(arguments: &CompareArguments, threads: usize, repeats: usize) -> Vec<Run> {
    let image = if arguments.quick {
        ImageSize {
            height: QUICK_EDGE,
            width: QUICK_EDGE,
        }
    } else {
        arguments.image
    };
    let peers = [
        Peer::PlainPyTorch,
        Peer::ChannelsLast,
        Peer::Checkpointing,
        Peer::Lightstream {
            tile: arguments.lightstream_tile.get(),
        },
    ];
    let own = [
        Own::Whole,
        Own::WholeDirect,
        Own::PartOfPyTorch(5),
        Own::PartOfPyTorch(10),
    ];
    let shortest = image.height.min(image.width);
    let mut tiles: Vec<u64> = arguments.tiles.iter().map(|tile| tile.get()).collect();
    tiles.dedup();
    let tiles = tiles
        .into_iter()
        .filter(|&tile| tile < shortest)
        .map(Own::Tiles);
    let contenders = peers.map(Contender::Peer).into_iter();
    let contenders = contenders.chain(own.into_iter().chain(tiles).map(Contender::Own));
    let single = contenders.map(|contender| (contender, Precision::F32));
    single
        .chain(ROUNDED.map(|contender| (contender, Precision::BF16)))
        .map(|(contender, precision)| Run {
            entry: Entry {
                model: arguments.model.clone(),
                image,
                threads,
                contender,
                precision,
            },
            repeats,
            error: true,
        })
        .collect()
}

/// Those that are run in bf16, too: PyTorch by its autocast.
pub(crate) const ROUNDED: [Contender; 4] = [
    Contender::Peer(Peer::PlainPyTorch),
    Contender::Peer(Peer::ChannelsLast),
    Contender::Own(Own::Whole),
    Contender::Own(Own::PartOfPyTorch(5)),
];

#[cfg(test)]
mod tests {
    use clap::Parser;
    use xtask::arguments::{Arguments, Command};

    use super::*;

    fn names(line: &str) -> Vec<String> {
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Compare(arguments) = arguments.command else {
            panic!("not parsed as compare");
        };
        let names = runs(&arguments).into_iter();
        names.map(|run| run.entry.name()).collect()
    }

    #[test]
    fn what_is_skipped_is_left_out() {
        assert_eq!(
            names("xtask compare --skip checkpoint,lightstream --skip channels-last --tile 256"),
            [
                "PyTorch",
                "stream-grad, all memory",
                "stream-grad, all memory, direct arithmetic",
                "stream-grad, 1/5 of PyTorch's",
                "stream-grad, 1/10 of PyTorch's",
                "stream-grad, tile 256",
                "PyTorch, bf16",
                "stream-grad, all memory, bf16",
                "stream-grad, 1/5 of PyTorch's, bf16",
            ]
        );
        let own = names("xtask compare --skip python,bf16 --image 300x400 --tile 256,512");
        assert_eq!(own.last().unwrap(), "stream-grad, tile 256");
        assert_eq!(own.len(), 5);
    }

    #[test]
    fn budgets_come_after_what_they_are_measured_by() {
        for line in ["xtask compare", "xtask compare --table"] {
            let names = names(line);
            let place = |name: &str| {
                names
                    .iter()
                    .position(|found| found.starts_with(name))
                    .unwrap()
            };
            assert!(place("PyTorch") < place("stream-grad, 1/5"));
            assert!(place("PyTorch, channels_last") < place("stream-grad, 1/5"));
            if line.ends_with("table") {
                assert!(place("lightstream") < place("stream-grad, within lightstream"));
            }
        }
    }
}
