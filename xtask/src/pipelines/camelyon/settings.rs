//! Settings of the experiment, by its classes and its scale.

use stream_grad_cli::exit::WrongUse;
use stream_grad_train::cohort::{CohortConfig, SplitSizes, Subject};
use stream_grad_train::data::{Layout, NodeStage, Task};
use stream_grad_train::model::ModelSettings;
use stream_grad_train::optimizer::OptimizerKind;
use stream_grad_train::settings::Settings;
use stream_grad_train::source::Trim;
use xtask::arguments::{CamelyonArguments, Scale, SlideClasses, SlidesArguments};

use crate::slides;

/// Edge of the slides of `--scale paper` in microns, at 1 micron per pixel.
const PAPER_EDGE: f64 = 8192.0;
/// Of the made-up slides: 2048, 4096 and 8192 pixels edge.
const PAPER_MADE_UP: [f64; 3] = [4.0, 2.0, 1.0];
/// Of published slides, whose tissue spans some 16 to 32 mm: about the same.
const PAPER_GIVEN: [f64; 3] = [16.0, 8.0, 4.0];
/// Slides of `--scale paper`.
const PAPER_SLIDES: usize = 40;

/// Levels of a slide: negative, itc, micro, macro. They have an order, and what is published weighs mistakes by it.
const STAGES: Task = Task::Ordinal { levels: 4 };
/// Grades of PANDA.
const GRADES: Task = Task::Ordinal { levels: 6 };

/// The settings of the training and of the made-up cohort: defaults, on which the file goes and then the flags.
pub(super) fn settings(arguments: &CamelyonArguments) -> anyhow::Result<(Settings, CohortConfig)> {
    let (mut settings, mut cohort) = slides::settings(&arguments.slides, defaults(arguments))?;
    if let Some(epochs) = arguments.epochs {
        settings.train.epochs = epochs;
    }
    match arguments.classes {
        Some(SlideClasses::Two) => settings.data.task = Task::Binary,
        // A file may want classes without an order.
        Some(SlideClasses::Four) if !is_of_stages(settings.data.task) => {
            settings.data.task = STAGES;
        }
        _ => {}
    }
    if is_of_stages(settings.data.task) && cohort.subject == Subject::Metastasis {
        cohort.subject = Subject::NodeStages;
        if arguments.slides.quick {
            cohort.splits = QUICK_STAGES;
        }
    }
    let paper = (arguments.scale == Scale::Paper && arguments.slides.settings.is_none())
        .then_some(PAPER_SLIDES);
    if let Some(slides) = arguments.slide_count.or(paper) {
        cohort.splits = splits(slides, cohort.subject)?;
    }
    settings.check()?;
    cohort.check()?;
    Ok((settings, cohort))
}

/// Whether slides have the classes of lymph nodes.
pub(super) fn is_of_stages(task: Task) -> bool {
    let stages = Some(NodeStage::ALL.len());
    matches!(task, Task::Ordinal { .. } | Task::Classification { .. }) && task.classes() == stages
}

const QUICK: SplitSizes = SplitSizes {
    train: 16,
    validation: 4,
    test: 16,
};

/// Whole patients.
const QUICK_STAGES: SplitSizes = SplitSizes {
    train: 25,
    validation: 0,
    test: 25,
};

fn defaults(arguments: &CamelyonArguments) -> (Settings, CohortConfig) {
    let (mut settings, mut cohort) = (slides::for_small_things(), CohortConfig::default());
    if slides::layout(&arguments.slides) == Some(Layout::Panda) {
        settings.data.task = GRADES;
    }
    if arguments.slides.quick {
        settings.train.epochs = 2;
        cohort.splits = QUICK;
    }
    if arguments.scale == Scale::Paper {
        paper(&mut settings, &arguments.slides);
        cohort = cohort.resized(PAPER_EDGE);
    }
    (settings, cohort)
}

fn paper(settings: &mut Settings, arguments: &SlidesArguments) {
    settings.model = ModelSettings {
        name: "resnet18".to_owned(),
        memory_bytes: 2 << 30,
        ..ModelSettings::small()
    };
    settings.train.epochs = 3;
    // Few slides: a smaller batch makes more steps of them, and of a network this deep they must be smaller, too.
    settings.train.batch_size = 4;
    settings.train.learning_rate = 2e-4;
    settings.train.optimizer = OptimizerKind::ADAMW;
    settings.data.microns_per_pixel = PAPER_MADE_UP.to_vec();
    if !slides::are_made_up(arguments) {
        settings.data.microns_per_pixel = PAPER_GIVEN.to_vec();
        settings.data.read.trim = Trim::Tissue;
    }
}

/// Three fifths of the slides to learn from and the others to test on, each with whole patients and both classes.
fn splits(slides: usize, subject: Subject) -> anyhow::Result<SplitSizes> {
    let unit = match subject {
        Subject::NodeStages => 5,
        Subject::Metastasis | Subject::Mitoses { .. } => 2,
    };
    let train = (slides * 3 / 5 / unit * unit).max(unit);
    if !slides.is_multiple_of(unit) || slides < train + unit {
        return Err(WrongUse::error(format!(
            "--slides takes a multiple of {unit} from {} on, found {slides}",
            2 * unit
        )));
    }
    Ok(SplitSizes {
        train,
        validation: 0,
        test: slides - train,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use xtask::arguments::{Arguments, Command, Experiment};

    use super::*;

    fn found(line: &str) -> anyhow::Result<(Settings, CohortConfig)> {
        let line = format!("xtask reproduce camelyon {line}");
        let Command::Reproduce(reproduce) =
            Arguments::try_parse_from(line.split_whitespace())?.command
        else {
            panic!("not parsed as reproduce");
        };
        match reproduce.experiment {
            Experiment::Camelyon(arguments) => settings(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slides_and_tasks_follow_the_flags() {
        let (settings, cohort) = found("").unwrap();
        assert_eq!(
            (settings.data.task, cohort),
            (Task::Binary, CohortConfig::default())
        );
        let (settings, cohort) = found("--classes 4 --epochs 7").unwrap();
        assert_eq!((settings.data.task, settings.train.epochs), (STAGES, 7));
        assert_eq!(cohort, CohortConfig::node_stages());
        assert!(found("--classes 4 --quick").is_ok());

        let (settings, cohort) = found("--scale paper").unwrap();
        assert_eq!(
            (settings.model.name.as_str(), settings.train.epochs),
            ("resnet18", 3)
        );
        assert_eq!(cohort.splits.total(), PAPER_SLIDES);
        for (microns, pixels) in settings
            .data
            .microns_per_pixel
            .iter()
            .zip([2048.0, 4096.0, 8192.0])
        {
            assert_eq!(cohort.edge_microns, [microns * pixels; 2]);
        }
    }

    #[test]
    fn splits_have_whole_patients_or_both_classes() {
        let sizes = |line: &str| found(line).map(|(_, cohort)| cohort.splits);
        let of = |train, test| SplitSizes {
            train,
            validation: 0,
            test,
        };
        assert_eq!(sizes("--slides 8").unwrap(), of(4, 4));
        assert_eq!(sizes("--slides 4").unwrap(), of(2, 2));
        assert_eq!(
            sizes("--scale paper --classes 4 --slides 20").unwrap(),
            of(10, 10)
        );
        for line in ["--slides 2", "--slides 9", "--classes 4 --slides 8"] {
            let error = sizes(line).unwrap_err().to_string();
            assert!(error.contains("a multiple of"), "{error}");
        }
    }

    #[test]
    fn a_file_may_ask_for_classes_without_an_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(
            &file,
            "[data.task]\nkind = \"classification\"\nclasses = 4\n",
        )
        .unwrap();
        for flags in ["", "--classes 4"] {
            let (settings, cohort) =
                found(&format!("--settings {} {flags}", file.display())).unwrap();
            assert_eq!(settings.data.task, Task::Classification { classes: 4 });
            assert_eq!(cohort.subject, Subject::NodeStages);
        }
    }
}
