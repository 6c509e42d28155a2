//! Sums of gradients, by parameter name.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::error::{Result, TrainError};
use crate::in_place::sum_of_squares;

/// A model's trainable parameters under their names, in a fixed order.
pub type NamedVariables = Vec<(String, Var)>;

/// Gradients under the names of their parameters, summed over the slides of an accumulation group.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Takes the gradients of `variables` out of `store`; a parameter without one is left out.
    #[must_use]
    pub fn from_store(variables: &[(String, Var)], store: &GradStore) -> Self {
        let tensors = variables
            .iter()
            .filter_map(|(name, variable)| {
                store
                    .get(variable.as_tensor())
                    .map(|gradient| (name.clone(), gradient.detach()))
            })
            .collect();
        Self { tensors }
    }

    /// Adds a gradient under `name`.
    ///
    /// # Errors
    /// [`TrainError::State`] if there is one already and its shape differs; [`TrainError::Tensor`].
    pub fn add(&mut self, name: &str, gradient: &Tensor) -> Result<()> {
        let sum = match self.tensors.get(name) {
            Some(sum) if sum.dims() != gradient.dims() => {
                return Err(TrainError::State {
                    name: name.to_owned(),
                    expected: format!("a gradient of shape {:?}", sum.dims()),
                    found: format!("{:?}", gradient.dims()),
                });
            }
            Some(sum) => (sum + gradient)?,
            None => gradient.clone(),
        };
        self.tensors.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_all(&mut self, other: &Self) -> Result<()> {
        other
            .tensors
            .iter()
            .try_for_each(|(name, gradient)| self.add(name, gradient))
    }

    /// Multiplies every gradient by `factor`.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        // Of a group of one slide.
        if factor.to_bits() == 1.0_f64.to_bits() {
            return Ok(());
        }
        for gradient in self.tensors.values_mut() {
            *gradient = (&*gradient * factor)?;
        }
        Ok(())
    }

    /// The gradient under `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Euclidean norm of all gradients together, in double precision. NaN or infinite if any value is.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in self.tensors.values() {
            sum += sum_of_squares(gradient)?;
        }
        Ok(sum.sqrt())
    }

    /// Scales all gradients so that their common norm is at most `limit`, as PyTorch's `clip_grad_norm_`, and returns
    /// the norm before.
    ///
    /// # Errors
    /// [`TrainError::Tensor`]; [`TrainError::State`] if the norm is no number.
    pub fn clip(&mut self, limit: f64) -> Result<f64> {
        let norm = self.norm()?;
        if !norm.is_finite() {
            return Err(TrainError::State {
                name: "gradients".to_owned(),
                expected: "a finite norm".to_owned(),
                found: norm.to_string(),
            });
        }
        self.limit_norm(norm, limit)?;
        Ok(norm)
    }

    /// [`Self::clip`] where the norm, which is finite, is known.
    pub(crate) fn limit_norm(&mut self, norm: f64, limit: f64) -> Result<()> {
        // The 1e-6 is PyTorch's.
        let factor = limit / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn sums_and_clips() {
        let mut gradients = Gradients::default();
        gradients.add("a", &tensor(&[3.0, 0.0])).unwrap();
        gradients.add("b", &tensor(&[2.0])).unwrap();
        gradients.add("b", &tensor(&[2.0])).unwrap();
        assert!((gradients.norm().unwrap() - 5.0).abs() < 1e-12);
        assert!((gradients.clip(10.0).unwrap() - 5.0).abs() < 1e-12);
        assert!((gradients.norm().unwrap() - 5.0).abs() < 1e-12);
        gradients.clip(1.0).unwrap();
        assert!((gradients.norm().unwrap() - 1.0).abs() < 1e-6);
        let refused = gradients.add("a", &tensor(&[1.0, 2.0, 3.0])).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "tensor `a`: expected a gradient of shape [2], found [3]"
        );
    }

    #[test]
    fn a_norm_that_is_no_number_is_refused() {
        let mut gradients = Gradients::default();
        gradients.add("a", &tensor(&[f32::NAN])).unwrap();
        assert_eq!(
            gradients.clip(1.0).unwrap_err().to_string(),
            "tensor `gradients`: expected a finite norm, found NaN"
        );
    }
}
