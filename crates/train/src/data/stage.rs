//! The stage of a patient from the stages of the lymph nodes, as CAMELYON17 has it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Label, Sample};

/// What was found in a slide of a lymph node; as a label, its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStage {
    /// No tumour.
    Negative,
    /// Isolated tumour cells: up to 0.2 mm, or fewer than 200 cells.
    Itc,
    /// A micro-metastasis: larger, up to 2 mm.
    Micro,
    /// A macro-metastasis: larger than 2 mm.
    Macro,
}

impl NodeStage {
    /// All stages, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Negative, Self::Itc, Self::Micro, Self::Macro];
    /// Their names, as in CAMELYON17's tables and as names of classes.
    pub const NAMES: [&'static str; 4] = ["negative", "itc", "micro", "macro"];

    /// The stage of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let place = Self::NAMES.iter().position(|known| *known == name)?;
        Self::ALL.get(place).copied()
    }

    /// The stage that is the label's class.
    #[must_use]
    pub fn of_label(label: &Label) -> Option<Self> {
        Self::ALL.get(label.class()?).copied()
    }

    /// The label of the stage.
    #[must_use]
    pub fn label(self) -> Label {
        let place = Self::ALL.iter().position(|stage| *stage == self);
        Label::of_class(place.unwrap_or_default())
    }
}

/// The stage of a patient; in order, for kappa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PatientStage {
    /// No tumour in any node.
    #[serde(rename = "pN0")]
    N0,
    /// Isolated tumour cells only.
    #[serde(rename = "pN0(i+)")]
    N0IsolatedCells,
    /// Micro-metastases, and no macro-metastasis.
    #[serde(rename = "pN1mi")]
    N1Micro,
    /// Metastases in one to three nodes, at least one of them a macro-metastasis.
    #[serde(rename = "pN1")]
    N1,
    /// Metastases in four to nine nodes, at least one of them a macro-metastasis.
    #[serde(rename = "pN2")]
    N2,
}

impl PatientStage {
    /// All stages, from low to high.
    pub const ALL: [Self; 5] = [
        Self::N0,
        Self::N0IsolatedCells,
        Self::N1Micro,
        Self::N1,
        Self::N2,
    ];
    /// Their names, as in CAMELYON17's tables.
    pub const NAMES: [&'static str; 5] = ["pN0", "pN0(i+)", "pN1mi", "pN1", "pN2"];

    /// The stage of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let place = Self::NAMES.iter().position(|known| *known == name)?;
        Self::ALL.get(place).copied()
    }

    /// Its place in [`ALL`](Self::ALL): the rank that kappa weighs.
    #[must_use]
    pub fn rank(self) -> usize {
        Self::ALL
            .iter()
            .position(|stage| *stage == self)
            .unwrap_or_default()
    }
}

impl fmt::Display for PatientStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.get(self.rank()).copied().unwrap_or_default())
    }
}

/// The stage of a patient from those of the slides, one a lymph node; `None` without a slide.
///
/// By the challenge's simplified rule (Bándi et al., "From detection of individual metastases to classification of lymph node status
/// at the patient level: the CAMELYON17 challenge", IEEE TMI 38(2), 2019, table I): isolated tumour cells are no
/// metastasis and do not count; four nodes with a micro- or macro-metastasis are pN2 if one of them is a macro-metastasis.
/// The rule is for five slides; it has no stage above pN2.
///
/// ```
/// use stream_grad_train::data::NodeStage::{Itc, Macro, Micro, Negative};
/// use stream_grad_train::data::{PatientStage, patient_stage};
/// assert_eq!(patient_stage(&[Negative, Itc, Negative]), Some(PatientStage::N0IsolatedCells));
/// assert_eq!(patient_stage(&[Macro, Micro, Micro, Itc, Itc]), Some(PatientStage::N1));
/// assert_eq!(patient_stage(&[Macro, Micro, Micro, Micro, Itc]), Some(PatientStage::N2));
/// ```
#[must_use]
pub fn patient_stage(slides: &[NodeStage]) -> Option<PatientStage> {
    let metastases = slides.iter().filter(|stage| **stage >= NodeStage::Micro);
    Some(match slides.iter().max()? {
        NodeStage::Negative => PatientStage::N0,
        NodeStage::Itc => PatientStage::N0IsolatedCells,
        NodeStage::Micro => PatientStage::N1Micro,
        NodeStage::Macro if metastases.count() >= 4 => PatientStage::N2,
        NodeStage::Macro => PatientStage::N1,
    })
}

/// True and predicted stage of each patient, in the order of names, from the slides' labels and the predicted classes: what
/// quadratic weighted kappa is computed from. Slides without a patient or a label, and classes above 3, are passed over.
#[must_use]
pub fn patient_stages<'a>(
    slides: impl IntoIterator<Item = (&'a Sample, &'a Label)>,
) -> Vec<(String, PatientStage, PatientStage)> {
    let mut patients: BTreeMap<&str, (Vec<NodeStage>, Vec<NodeStage>)> = BTreeMap::new();
    for (sample, predicted) in slides {
        let truth = sample.label.as_ref().and_then(NodeStage::of_label);
        if let (Some(patient), Some(truth), Some(predicted)) =
            (&sample.patient, truth, NodeStage::of_label(predicted))
        {
            let (truths, predictions) = patients.entry(patient).or_default();
            truths.push(truth);
            predictions.push(predicted);
        }
    }
    let stages = |(patient, (truths, predictions)): (&str, (Vec<_>, Vec<_>))| {
        Some((
            patient.to_owned(),
            patient_stage(&truths)?,
            patient_stage(&predictions)?,
        ))
    };
    patients.into_iter().filter_map(stages).collect()
}

#[cfg(test)]
mod tests {
    use super::NodeStage::{Itc, Macro, Micro, Negative};
    use super::*;

    /// Every combination of five slides, against the published table in words.
    #[test]
    fn every_patient_of_five_slides_has_the_stage_of_the_table() {
        for number in 0..4_usize.pow(5) {
            let slides: Vec<NodeStage> = (0..5)
                .map(|place| NodeStage::ALL[number / 4_usize.pow(place) % 4])
                .collect();
            let count = |wanted| slides.iter().filter(|stage| **stage == wanted).count();
            let nodes = count(Micro) + count(Macro);
            let expected = if count(Macro) > 0 && (4..=9).contains(&nodes) {
                "pN2"
            } else if count(Macro) > 0 && (1..=3).contains(&nodes) {
                "pN1"
            } else if count(Micro) > 0 {
                "pN1mi"
            } else if count(Itc) > 0 {
                "pN0(i+)"
            } else {
                "pN0"
            };
            assert_eq!(
                patient_stage(&slides).unwrap().to_string(),
                expected,
                "{slides:?}"
            );
        }
        assert_eq!(patient_stage(&[]), None);
    }

    #[test]
    fn names_and_ranks_are_in_order() {
        for (rank, name) in PatientStage::NAMES.iter().enumerate() {
            let stage = PatientStage::parse(name).unwrap();
            assert_eq!((stage.rank(), stage.to_string().as_str()), (rank, *name));
        }
        for (place, name) in NodeStage::NAMES.iter().enumerate() {
            let stage = NodeStage::parse(name).unwrap();
            assert_eq!(stage.label(), Label::of_class(place));
            assert_eq!(NodeStage::of_label(&stage.label()), Some(stage));
        }
        assert!(Negative < Itc && Itc < Micro && Micro < Macro);
    }

    #[test]
    fn patients_are_staged_from_their_slides() {
        let slide = |patient: &str, stage: NodeStage| Sample {
            patient: Some(patient.to_owned()),
            ..Sample::new("a.tif", stage.label())
        };
        let samples = [slide("b", Macro), slide("a", Negative), slide("a", Micro)];
        let predicted = [Itc.label(), Negative.label(), Itc.label()];
        let unknown = Sample::unlabelled("c.tif");
        let pairs = samples
            .iter()
            .zip(&predicted)
            .chain([(&unknown, &predicted[0])]);
        let stages = patient_stages(pairs);
        assert_eq!(
            stages,
            [
                (
                    "a".to_owned(),
                    PatientStage::N1Micro,
                    PatientStage::N0IsolatedCells
                ),
                (
                    "b".to_owned(),
                    PatientStage::N1,
                    PatientStage::N0IsolatedCells
                ),
            ]
        );
    }
}
