//! `reproduce all`: every experiment, one after another, and a page that links their reports.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use clap::Parser;
use stream_grad_cli::exit::{Stopped, WrongUse};
use stream_grad_cli::{message, tell};
use stream_grad_files::write_whole;
use stream_grad_train::report;
use xtask::arguments::{AllArguments, Arguments, Command, Experiment};

/// An experiment by the name of its command, and the arguments that make it a rehearsal.
struct Member {
    name: &'static str,
    quick: &'static [&'static str],
}

/// All experiments, in the order in which they run.
const MEMBERS: [Member; 5] = [
    Member {
        name: "camelyon",
        quick: &["--quick"],
    },
    Member {
        name: "tupac",
        quick: &["--quick"],
    },
    Member {
        name: "imagenette",
        quick: &["--quick"],
    },
    Member {
        name: "numerics",
        quick: &["--image", "256", "--tile", "128"],
    },
    Member {
        name: "memory",
        quick: &["--quick"],
    },
];

/// In the folder of an experiment that is finished: the arguments that it was run with.
const FINISHED: &str = "finished";

/// Runs what is not finished yet. An experiment that fails is told at the end, after the others.
pub(crate) fn run(arguments: &AllArguments, stop: &AtomicBool) -> anyhow::Result<()> {
    run_all(&MEMBERS, arguments, stop, &crate::reproduce)
}

/// Runs an experiment until the flag is set.
type Reproduce<'a> = &'a dyn Fn(&Experiment, &AtomicBool) -> anyhow::Result<()>;

fn run_all(
    members: &[Member],
    arguments: &AllArguments,
    stop: &AtomicBool,
    reproduce: Reproduce<'_>,
) -> anyhow::Result<()> {
    let folder = arguments.output();
    let mut failed = Vec::new();
    for (place, member) in members.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped::error(format!("before {}", member.name)));
        }
        let heading = format!("{} ({} of {})", member.name, place + 1, members.len());
        let output = folder.join(member.name);
        let own = member.arguments(arguments);
        if is_finished(&output, &own)? {
            println!("\n== {heading}: finished, in {}", output.display());
            continue;
        }
        println!("\n== {heading}");
        match reproduce(&experiment(&own, &output)?, stop) {
            Ok(()) => write_whole(output.join(FINISHED), own.join(" ").as_bytes())?,
            Err(error) if stop.load(Ordering::Relaxed) => return Err(error),
            Err(error) => {
                tell(format_args!("error: {}: {}", member.name, message(&error)));
                failed.push(member.name);
            }
        }
        // What is finished is told, whatever comes next.
        index(members, &folder)?;
    }
    index(members, &folder)?;
    println!("\nAll reports: {}", folder.join("index.html").display());
    if !failed.is_empty() {
        bail!(
            "not finished: {}; run the same command again to go on with these",
            failed.join(", ")
        );
    }
    Ok(())
}

impl Member {
    /// Of `reproduce`, without the folder for results.
    fn arguments(&self, all: &AllArguments) -> Vec<&'static str> {
        let quick = if all.quick { self.quick } else { &[] };
        [&[self.name], quick].concat()
    }
}

fn experiment(arguments: &[&str], output: &Path) -> anyhow::Result<Experiment> {
    let output: &[&std::ffi::OsStr] = &["--output".as_ref(), output.as_ref()];
    let line = ["xtask", "reproduce"].iter().chain(arguments);
    let line = line.map(AsRef::as_ref).chain(output.iter().copied());
    match Arguments::try_parse_from(line)?.command {
        Command::Reproduce(arguments) => Ok(arguments.experiment),
        other => bail!("expected an experiment, found {other:?}"),
    }
}

/// Whether `output` holds the end of the experiment.
fn is_finished(output: &Path, arguments: &[&str]) -> anyhow::Result<bool> {
    let mark = output.join(FINISHED);
    if !mark.is_file() {
        return Ok(false);
    }
    let found = std::fs::read_to_string(&mark).with_context(|| mark.display().to_string())?;
    let expected = arguments.join(" ");
    if found == expected {
        return Ok(true);
    }
    Err(WrongUse::error(format!(
        "{} holds the results of `{found}`, which are not those of `{expected}`: give another --output",
        output.display()
    )))
}

/// Links the reports that there are.
fn index(members: &[Member], folder: &Path) -> anyhow::Result<()> {
    let runs: Vec<PathBuf> = members
        .iter()
        .map(|member| PathBuf::from(member.name))
        .filter(|name| folder.join(name).join("summary.json").is_file())
        .collect();
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    report::index(folder, "The paper's experiments", &runs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use stream_grad_train::report::Notes;

    use super::*;

    fn arguments(folder: &Path, quick: &[&str]) -> AllArguments {
        let line = ["xtask", "reproduce", "all", "--output"];
        let line = line.into_iter().chain(folder.to_str());
        let parsed = Arguments::try_parse_from(line.chain(quick.iter().copied())).unwrap();
        let Command::Reproduce(reproduce) = parsed.command else {
            panic!("not parsed as reproduce");
        };
        let Experiment::All(arguments) = reproduce.experiment else {
            panic!("not parsed as all");
        };
        arguments
    }

    /// Where an experiment leaves its results.
    fn output(experiment: &Experiment) -> PathBuf {
        match experiment {
            Experiment::Camelyon(arguments) => arguments.output(),
            Experiment::Tupac(arguments) => arguments.output(),
            Experiment::Imagenette(arguments) => arguments.output(),
            Experiment::Numerics(arguments) => arguments.output.clone(),
            Experiment::Memory(arguments) => arguments.output(),
            Experiment::All(arguments) => arguments.output(),
        }
    }

    fn name(experiment: &Experiment) -> String {
        let output = output(experiment);
        output.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Leaves a report that holds nothing but a title.
    fn report_of(experiment: &Experiment) {
        let output = output(experiment);
        std::fs::create_dir_all(&output).unwrap();
        let title = format!("Report of {}", name(experiment));
        Notes {
            title,
            ..Notes::default()
        }
        .write(&output)
        .unwrap();
        report::write(&output).unwrap();
    }

    /// Every experiment is in the list, and all arguments are those of its command.
    #[test]
    fn each_experiment_is_run_once_and_linked() {
        for quick in [&[][..], &["--quick"]] {
            let folder = tempfile::tempdir().unwrap();
            let arguments = arguments(folder.path(), quick);
            let ran = RefCell::new(Vec::new());
            let reproduce = |experiment: &Experiment, _: &AtomicBool| {
                report_of(experiment);
                ran.borrow_mut().push(name(experiment));
                Ok(())
            };
            let stop = AtomicBool::new(false);
            for _ in 0..2 {
                run_all(&MEMBERS, &arguments, &stop, &reproduce).unwrap();
            }
            let names = MEMBERS.map(|member| member.name.to_owned());
            assert_eq!(*ran.borrow(), names);
            let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
            for name in names {
                assert!(page.contains(&format!("{name}/report.html")), "{page}");
                assert!(page.contains(&format!("Report of {name}")), "{page}");
            }
        }
    }

    #[test]
    fn all_of_the_command_line_are_members() {
        use clap::CommandFactory;
        let command = Arguments::command();
        let reproduce = command.find_subcommand("reproduce").unwrap();
        let mut names: Vec<&str> = reproduce.get_subcommands().map(|c| c.get_name()).collect();
        names.retain(|name| *name != "all");
        let mut members = MEMBERS.map(|member| member.name).to_vec();
        names.sort_unstable();
        members.sort_unstable();
        assert_eq!(names, members);
    }

    #[test]
    fn what_was_stopped_goes_on_and_what_failed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments(folder.path(), &[]);
        let stop = AtomicBool::new(false);
        let ran = RefCell::new(Vec::new());
        let stopping = |experiment: &Experiment, stop: &AtomicBool| {
            ran.borrow_mut().push(name(experiment));
            if name(experiment) == "tupac" {
                stop.store(true, Ordering::Relaxed);
                return Err(Stopped::error("in epoch 1"));
            }
            report_of(experiment);
            Ok(())
        };
        let error = run_all(&MEMBERS, &arguments, &stop, &stopping).unwrap_err();
        assert!(error.is::<Stopped>(), "{error}");
        assert_eq!(*ran.borrow(), ["camelyon", "tupac"]);

        let failing = |experiment: &Experiment, _: &AtomicBool| {
            ran.borrow_mut().push(name(experiment));
            if name(experiment) == "tupac" {
                bail!("the disk is full");
            }
            report_of(experiment);
            Ok(())
        };
        stop.store(false, Ordering::Relaxed);
        ran.borrow_mut().clear();
        let error = run_all(&MEMBERS, &arguments, &stop, &failing).unwrap_err();
        assert!(error.to_string().contains("not finished: tupac"), "{error}");
        assert_eq!(*ran.borrow(), ["tupac", "imagenette", "numerics", "memory"]);
        let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
        assert!(page.contains("memory/report.html") && !page.contains("tupac/report.html"));
    }

    #[test]
    fn results_of_a_rehearsal_are_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let reproduce = |experiment: &Experiment, _: &AtomicBool| {
            report_of(experiment);
            Ok(())
        };
        let run = |quick| {
            run_all(
                &MEMBERS,
                &arguments(folder.path(), quick),
                &stop,
                &reproduce,
            )
        };
        run(&["--quick"]).unwrap();
        let error = run(&[]).unwrap_err().to_string();
        assert!(error.contains("`camelyon --quick`"), "{error}");
    }
}
