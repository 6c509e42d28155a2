//! A network that is streamed under a memory budget, with its variables and plans: what models of slides and of pixels share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use stream_grad::tiling::{ByteCount, Recipe, Reuse};
use stream_grad::{CostModel, Maps, Net, Plan, PlanRequest, Trainable, Workspace};
use stream_grad_models::{StateDict, seeded};

use super::parts::{NET, frozen_parameters};
use super::{ModelSettings, Precision, assign};
use crate::error::{Result, TrainError};
use crate::gradients::NamedVariables;
use crate::source::typical_texture;

/// A network and its variables. Plans are made once for each size of image.
pub(super) struct StreamedNet {
    variables: VarMap,
    trainable: NamedVariables,
    /// Names of the network's trained parameters, for plans; `None` for all.
    trained_in_net: Option<Vec<String>>,
    net: Net,
    features: Maps,
    precision: Precision,
    memory: ByteCount,
    threads: usize,
    offload: Option<PathBuf>,
    cost_model: CostModel,
    reuse: Reuse,
    plans: Mutex<Plans>,
    /// One for all plans: images of many sizes take the memory of one.
    workspace: Workspace,
}

#[derive(Default)]
struct Plans {
    made: BTreeMap<(u64, u64), Plan>,
    stored: BTreeMap<(u64, u64), Recipe>,
}

/// What stands on a network, and which of its variables are not trained.
pub(super) struct Top<T> {
    pub(super) top: T,
    pub(super) constants: Vec<String>,
}

impl StreamedNet {
    /// Draws weights from `seed`, or reads the network's from the file that the settings name; `top` makes what stands on it.
    pub(super) fn build<T>(
        settings: &ModelSettings,
        seed: u64,
        features: Maps,
        net: impl FnOnce(VarBuilder<'_>) -> Result<Net>,
        top: impl FnOnce(&Net, VarBuilder<'_>) -> Result<Top<T>>,
    ) -> Result<(Self, T)> {
        settings.check()?;
        let variables = VarMap::new();
        let builder = seeded(&variables, seed, DType::F32, &Device::Cpu);
        let net = net(builder.pp("net"))?;
        if let Some(path) = &settings.weights {
            // Files have the network's own names.
            let own = by_name(&variables)?.into_iter();
            let own = own.filter_map(|(name, variable)| {
                Some((name.strip_prefix(NET)?.to_owned(), variable))
            });
            StateDict::read(path)?.assign(&own.collect())?;
        }
        let frozen = frozen_parameters(&net, &settings.frozen)?;
        let Top { top, constants } = top(&net, builder)?;
        let mut constants: BTreeSet<String> = constants.into_iter().collect();
        let fixed = net.parameters().iter();
        let fixed = fixed.filter(|parameter| !parameter.trainable);
        constants.extend(fixed.map(|parameter| parameter.name.clone()));
        constants.extend(frozen.iter().cloned());
        let trainable = by_name(&variables)?
            .into_iter()
            .filter(|(name, _)| !constants.contains(name))
            .collect();
        let trained_in_net = (!frozen.is_empty()).then(|| {
            let names = net.parameters().iter().map(|parameter| &parameter.name);
            names
                .filter(|name| !constants.contains(*name))
                .cloned()
                .collect()
        });
        let streamed = Self {
            variables,
            trainable,
            trained_in_net,
            net,
            features,
            precision: settings.dtype,
            memory: ByteCount::bytes(settings.memory_bytes),
            threads: settings.threads,
            offload: settings.offload.clone(),
            cost_model: CostModel::FIXED,
            reuse: Reuse::Nothing,
            plans: Mutex::default(),
            workspace: Workspace::new(),
        };
        Ok((streamed, top))
    }

    pub(super) fn set_cost_model(&mut self, cost_model: CostModel) {
        self.cost_model = cost_model;
    }

    pub(super) fn set_reuse(&mut self, reuse: Reuse) {
        self.reuse = reuse;
    }

    pub(super) const fn net(&self) -> &Net {
        &self.net
    }

    pub(super) const fn trainable(&self) -> &NamedVariables {
        &self.trainable
    }

    pub(super) const fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) const fn memory(&self) -> ByteCount {
        self.memory
    }

    pub(super) fn variable(&self, name: &str) -> Result<Option<Var>> {
        Ok(by_name(&self.variables)?.remove(name))
    }

    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let variables = by_name(&self.variables).unwrap_or_default();
        variables
            .into_iter()
            .map(|(name, variable)| (name, variable.as_detached_tensor()))
            .collect()
    }

    pub(super) fn load_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        assign(&by_name(&self.variables)?, tensors)
    }

    pub(super) fn plan(&self, height: u64, width: u64) -> Result<Plan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.made.get(&(height, width)) {
            return Ok(plan.clone());
        }
        let mut request = self.request(height, width);
        if let Some(recipe) = plans.stored.get(&(height, width)) {
            request = request.recipe(recipe.clone());
        }
        let plan = self.net.plan(request)?;
        plans.made.insert((height, width), plan.clone());
        Ok(plan)
    }

    pub(super) fn request(&self, height: u64, width: u64) -> PlanRequest {
        let mut request = PlanRequest::new(height, width)
            .dtype(stream_grad::DType::from(self.precision))
            .features(self.features)
            .memory(self.memory)
            .workspace(&self.workspace)
            .reuse(self.reuse)
            .texture(typical_texture())
            .cost_model(self.cost_model.clone());
        if self.threads > 0 {
            request = request.threads(self.threads);
        }
        if let Some(folder) = &self.offload {
            request = request.offload(folder);
        }
        if let Some(names) = &self.trained_in_net {
            request = request.trainable(Trainable::Only(names.clone()));
        }
        request
    }

    pub(super) fn recipes(&self) -> Vec<Recipe> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recipes = plans.stored.clone();
        recipes.extend(
            plans
                .made
                .iter()
                .map(|(extent, plan)| (*extent, plan.recipe().clone())),
        );
        recipes.into_values().collect()
    }

    pub(super) fn load_recipes(&self, recipes: Vec<Recipe>) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.made.clear();
        plans.stored = recipes
            .into_iter()
            .map(|recipe| ((recipe.image.rows, recipe.image.columns), recipe))
            .collect();
    }
}

fn by_name(variables: &VarMap) -> Result<BTreeMap<String, Var>> {
    let data = variables
        .data()
        .lock()
        .map_err(|error| TrainError::System {
            what: "the model's variables",
            reason: error.to_string(),
        })?;
    Ok(data
        .iter()
        .map(|(name, variable)| (name.clone(), variable.clone()))
        .collect())
}
