//! Stages of patients, where the slides' classes are those of lymph nodes.

use maud::{Markup, html};

use super::technical::short;
use crate::data::PatientStage;
use crate::error::Result;
use crate::report::detail::Detail;
use crate::report::page::{Align, Page, table, text};
use crate::report::plot::Matrix;
use crate::report::stages::Stages;

/// Kappa of each resolution, and which stage was taken for which.
pub(super) fn section(details: &[Detail<'_>], page: &mut Page) -> Result<Markup> {
    let staged: Vec<(&Detail<'_>, &Stages)> = details
        .iter()
        .filter_map(|detail| Some((detail, detail.stages.as_ref()?)))
        .collect();
    if staged.is_empty() {
        return Ok(html! {});
    }
    let mut matrices = Vec::new();
    for (detail, stages) in &staged {
        matrices.push(confusion(detail, stages, page)?);
    }
    Ok(html! {
        p {
            "The stage of a patient follows from the classes of the patient's slides, by the simplified rule of CAMELYON17: true \
             stages from their labels, predicted ones from their predicted classes. Slides that were not predicted do not count."
        }
        (kappas(&staged, page)?)
        @for (detail, stages) in &staged {
            @if let Err(problem) = &stages.kappa { p.note { (detail.title) ": no kappa. " (problem) "." } }
        }
        div.figures { @for matrix in matrices { (matrix) } }
    })
}

fn kappas(staged: &[(&Detail<'_>, &Stages)], page: &mut Page) -> Result<Markup> {
    let columns = [
        ("Resolution", Align::Text),
        ("Patients", Align::Number),
        ("Stage is right", Align::Number),
        ("Cohen's kappa (quadratic)", Align::Number),
    ];
    let right = |stages: &Stages| {
        let patients = stages.patients.iter();
        patients
            .filter(|(_, truth, predicted)| truth == predicted)
            .count()
    };
    let rows: Vec<Vec<Markup>> = staged
        .iter()
        .map(|(detail, stages)| {
            let kappa = match &stages.kappa {
                Ok(kappa) => html! {
                    (short(kappa.value)) br;
                    small {
                        @if kappa.low.is_nan() { "no interval" }
                        @else { (short(kappa.low)) " to " (short(kappa.high)) }
                    }
                },
                Err(_) => text("–"),
            };
            vec![
                text(&detail.title),
                text(stages.patients.len().to_string()),
                text(right(stages).to_string()),
                kappa,
            ]
        })
        .collect();
    let link = page.csv(
        "patient-stages",
        &["resolution", "patient", "truth", "predicted"],
        staged.iter().flat_map(|(detail, stages)| {
            stages.patients.iter().map(|(patient, truth, predicted)| {
                vec![
                    detail.slug.clone(),
                    patient.clone(),
                    truth.to_string(),
                    predicted.to_string(),
                ]
            })
        }),
    )?;
    let caption = "Predicted beside true stages; intervals are of resamples of patients";
    Ok(table(caption, &link, &columns, &rows))
}

fn confusion(detail: &Detail<'_>, stages: &Stages, page: &mut Page) -> Result<Markup> {
    let names = PatientStage::NAMES.map(str::to_owned).to_vec();
    let counts = stages.counts();
    let name = format!("patient-stages-{}", detail.slug);
    let mut heading = vec!["truth"];
    heading.extend(PatientStage::NAMES);
    let rows = counts.iter().zip(&names).map(|(counts, name)| {
        let counts = counts.iter().map(ToString::to_string);
        [name.clone()].into_iter().chain(counts).collect()
    });
    let link = page.csv(&name, &heading, rows)?;
    let matrix = Matrix {
        title: format!("Stages of patients, {}", detail.title),
        alt: format!(
            "Confusion matrix of the stages of {} patients",
            stages.patients.len()
        ),
        names,
        counts,
    };
    let caption = "Patients by true and predicted stage; shades are shares of each row.";
    page.matrix(&name, &matrix, caption, link)
}
