//! What custom operators allocate while they run, for the planner.

use std::sync::Arc;

use stream_grad_tiling::{Axis, Geometry, LayerScratch, Span};

use crate::network::Node;
use crate::operators::{AnyOperator, CustomOperator};
use crate::parameter::ParameterShape;

/// What the custom operators of a network, and the engine for them, allocate while they run.
#[derive(Debug)]
pub(crate) struct CustomScratch {
    operators: Vec<Placed>,
    /// Of what the operators see.
    element_bytes: u64,
}

/// A custom operator with its place in the graph.
#[derive(Debug)]
struct Placed {
    node: usize,
    input: usize,
    operator: Arc<dyn CustomOperator>,
    largest_parameter: u64,
}

impl CustomScratch {
    /// The scratch of the custom operators among `nodes`, which see values of so many bytes, if there are any.
    pub(crate) fn of(
        nodes: &[Node],
        parameters: &[ParameterShape],
        element_bytes: usize,
    ) -> Option<Arc<dyn LayerScratch>> {
        let operators: Vec<Placed> = nodes
            .iter()
            .enumerate()
            .filter_map(|(node, one)| match &one.operator {
                AnyOperator::Custom(custom) => Some(Placed {
                    node,
                    input: one.inputs[0],
                    operator: Arc::clone(&custom.operator),
                    largest_parameter: custom
                        .parameters
                        .iter()
                        .map(|id| parameters[id.0].len() as u64)
                        .max()
                        .unwrap_or(0),
                }),
                _ => None,
            })
            .collect();
        (!operators.is_empty()).then(|| -> Arc<dyn LayerScratch> {
            Arc::new(Self {
                operators,
                element_bytes: element_bytes as u64,
            })
        })
    }

    fn operator_bytes(&self, geometry: &Geometry, placed: &Placed) -> u128 {
        let nodes = geometry.sized().graph().nodes();
        let rule = &placed.operator.rule();
        let size = &geometry.sized().size(placed.input);
        let outputs = |axis: Axis| {
            let schedules = geometry.schedules(axis).iter();
            schedules.map(|schedule| schedule.largest_owned(placed.node))
        };
        let inputs = |axis: Axis| {
            let schedules = geometry.schedules(axis).iter();
            schedules.flat_map(move |schedule| {
                (0..schedule.bands())
                    .map(move |band| {
                        rule[axis].needed(schedule.owned(band, placed.node), size[axis])
                    })
                    .map(Span::len)
            })
        };
        let values = |rows: Option<u64>, columns: Option<u64>, node: usize| {
            let area = rows.unwrap_or(0).saturating_mul(columns.unwrap_or(0));
            area.saturating_mul(nodes[node].channels)
        };
        let output = values(
            outputs(Axis::Rows).max(),
            outputs(Axis::Columns).max(),
            placed.node,
        );
        let input = values(
            inputs(Axis::Rows).max(),
            inputs(Axis::Columns).max(),
            placed.input,
        );
        // Of the engine: what it hands over, and copies of the result in its own order.
        let handed = 3 * u128::from(input) + 2 * u128::from(output);
        u128::from(placed.operator.scratch_bytes(input, output))
            .saturating_add(handed.saturating_mul(u128::from(self.element_bytes)))
            .saturating_add(16 * u128::from(placed.largest_parameter))
    }
}

impl LayerScratch for CustomScratch {
    fn bytes(&self, geometry: &Geometry) -> u128 {
        let operators = self.operators.iter();
        operators
            .map(|placed| self.operator_bytes(geometry, placed))
            .max()
            .unwrap_or(0)
    }
}
