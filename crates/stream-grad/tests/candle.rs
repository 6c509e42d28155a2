//! What candle differentiates wrongly: the table of `CandleLayer`. A test that fails here says that candle has mended
//! something, and the table is to be changed.

#![expect(clippy::unwrap_used, reason = "a failure is the test's message")]

use candle_core::{DType, Device, Result, Tensor, Var};

type Function<'a> = dyn Fn(&Tensor) -> Result<Tensor> + 'a;

/// Largest difference between candle's gradient and central differences of the sum of the squares.
fn error(values: &[f64], shape: &[usize], function: impl Fn(&Tensor) -> Result<Tensor>) -> f64 {
    const STEP: f64 = 1e-6;
    let tensor = |values: &[f64]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let sum = |x: &Tensor| function(x)?.sqr()?.sum_all();
    let x = Var::from_tensor(&tensor(values)).unwrap();
    let gradients = sum(x.as_tensor()).unwrap().backward().unwrap();
    let found: Vec<f64> = match gradients.get(x.as_tensor()) {
        Some(gradient) => gradient.flatten_all().unwrap().to_vec1().unwrap(),
        None => vec![0.0; values.len()],
    };
    let at = |values: &[f64]| sum(&tensor(values)).unwrap().to_scalar::<f64>().unwrap();
    let differences = (0..values.len()).map(|index| {
        let moved = |by: f64| {
            let mut values = values.to_vec();
            values[index] += by;
            at(&values)
        };
        let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        (expected - found[index]).abs()
    });
    differences.fold(0.0, f64::max)
}

/// Distinct values, none of them 0.
fn values(count: usize) -> Vec<f64> {
    let place = |index: usize| (index * 37 + 11) % (2 * count + 1);
    let mut seen = std::collections::BTreeSet::new();
    let values: Vec<f64> = (0..count)
        .map(|index| {
            let place = place(index);
            assert!(seen.insert(place), "values repeat");
            (place as f64 + 0.7) / count as f64 - 1.0
        })
        .collect();
    values
}

/// Wrong by so much that no rounding can be the reason.
const WRONG: f64 = 1e-2;
/// As near as differences can tell.
const RIGHT: f64 = 1e-7;

fn error_of(shape: &[usize], function: impl Fn(&Tensor) -> Result<Tensor>) -> f64 {
    error(&values(shape.iter().product()), shape, function)
}

fn indices(of: &[u32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(of, shape, &Device::Cpu).unwrap()
}

/// What candle says instead of a gradient of the sum; a backtrace may follow, where the environment asks for one.
fn refusal(y: &Tensor) -> String {
    let refused = y.sum_all().unwrap().backward().unwrap_err().to_string();
    refused.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn max_pooling_gives_a_quarter() {
    assert!(error_of(&[1, 2, 4, 6], |x| x.max_pool2d(2)) > WRONG);
    // The gradient of the maximum 4 is 2 * 4, of which it gives a quarter.
    let found = error(&[1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2], |x| x.max_pool2d(2));
    assert!((found - 6.0).abs() < 1e-6, "{found}");
    // A stride of its own is refused.
    let x = Var::ones((1, 1, 5, 5), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(
        refusal(&x.max_pool2d_with_stride(3, 2).unwrap()),
        "backward not supported for maxpool2d if ksize (3, 3) != stride (2, 2)"
    );
}

#[test]
fn average_pooling_of_ragged_inputs_is_wrong_and_of_whole_windows_right() {
    assert!(error_of(&[1, 1, 5, 5], |x| x.avg_pool2d(2)) > WRONG);
    assert!(error_of(&[1, 1, 7, 6], |x| x.avg_pool2d(3)) > WRONG);
    assert!(error_of(&[1, 2, 4, 6], |x| x.avg_pool2d(2)) < RIGHT);
    let x = Var::ones((1, 1, 5, 5), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(
        refusal(&x.avg_pool2d_with_stride(3, 2).unwrap()),
        "backward not supported for avgpool2d if ksize (3, 3) != stride (2, 2)"
    );
}

#[test]
fn nearest_upsampling_forgets_what_came_from_elsewhere() {
    let up = |x: &Tensor| x.upsample_nearest2d(4, 6);
    let shape = [1, 2, 2, 3];
    assert!(error_of(&shape, up) < RIGHT);
    let both = |x: &Tensor| Tensor::cat(&[&up(x)?.flatten_all()?, &x.flatten_all()?], 0);
    let other = |x: &Tensor| Tensor::cat(&[&x.flatten_all()?, &up(x)?.flatten_all()?], 0);
    let errors = (error_of(&shape, both), error_of(&shape, other));
    // Which order loses depends on the graph's walk.
    assert!(errors.0.max(errors.1) > WRONG, "{errors:?}");
    let x = Var::ones((1, 1, 2, 2), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(
        refusal(&x.upsample_bilinear2d(4, 4, false).unwrap()),
        "backward not supported for upsample_bilinear2d"
    );
}

#[test]
fn maxima_along_an_axis_count_ties_twice() {
    let ties = [1.0, 3.0, 3.0, 0.5];
    for reduce in [Tensor::max::<usize>, Tensor::min::<usize>] {
        assert!(error_of(&[2, 5], |x| reduce(x, 1)) < RIGHT);
    }
    // All moved together, the maximum's square rises by 2 * 3; both entries at 3 get all of it.
    let x = Var::from_tensor(&Tensor::from_slice(&ties, (1, 4), &Device::Cpu).unwrap()).unwrap();
    let sum = x.max(1).unwrap().sqr().unwrap().sum_all().unwrap();
    let gradients = sum.backward().unwrap();
    let found: Vec<f64> = gradients
        .get(x.as_tensor())
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    assert_eq!(found, [0.0, 6.0, 6.0, 0.0]);
    // Of two tensors they are halved.
    let y = x.maximum(&x.as_tensor().copy().unwrap()).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let found = gradients.get(x.as_tensor()).unwrap();
    let found: Vec<f64> = found.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found, [1.0; 4]);
}

#[test]
fn scattering_has_its_masks_exchanged() {
    let once = indices(&[1, 3, 0], &[1, 3]);
    let part = |x: &Tensor| x.narrow(1, 0, 3)?.affine(2.0, 0.0);
    let shape = [1, 5];
    assert!(error_of(&shape, |x| x.scatter(&once, &part(x)?, 1)) > WRONG);
    let index = indices(&[1, 1, 0, 2, 2], &shape);
    assert!(error_of(&shape, |x| x.scatter_add(&index, &(x * 2.0)?, 1)) > WRONG);
    // Of fewer sources than values it is refused.
    let x = Var::ones(&shape[..], DType::F64, &Device::Cpu).unwrap();
    let y = x
        .scatter_add(&once, &part(x.as_tensor()).unwrap(), 1)
        .unwrap();
    assert_eq!(
        refusal(&y),
        "shape mismatch in scatter (indexes, src), lhs: [1, 3], rhs: [1, 5]"
    );
    let row = indices(&[1, 1, 0], &[3]);
    assert!(error_of(&shape, |x| x.index_add(&row, &part(x)?, 1)) < RIGHT);
}

#[test]
fn gelu_is_off_by_a_part_in_a_million() {
    for function in [Tensor::gelu, Tensor::gelu_erf] {
        let found = error_of(&[1, 40], |x| function(&(x * 3.0)?));
        assert!(found > 10.0 * RIGHT && found < 1e-4, "{found}");
    }
}

#[test]
fn norms_and_softmax_of_candle_nn_have_no_gradient() {
    let scale = Tensor::new(&[1.5_f64, 0.5, -1.0, 2.0], &Device::Cpu).unwrap();
    let single = scale.to_dtype(DType::F32).unwrap();
    let norm = |x: &Tensor| candle_nn::ops::layer_norm(x, &single, &single, 1e-5);
    let rms = |x: &Tensor| candle_nn::ops::rms_norm(x, &single, 1e-5);
    let module = |x: &Tensor| {
        let norm = candle_nn::LayerNorm::new(single.clone(), single.clone(), 1e-5);
        candle_nn::Module::forward(&norm, x)
    };
    let shape = [3, 4];
    for function in [
        &norm as &Function<'_>,
        &rms,
        &module,
        &candle_nn::ops::softmax_last_dim,
    ] {
        let x = Var::ones(&shape[..], DType::F32, &Device::Cpu);
        assert!(!function(x.unwrap().as_tensor()).unwrap().track_op());
    }
    let slow = |x: &Tensor| candle_nn::ops::layer_norm_slow(x, &scale, &scale, 1e-5);
    assert!(error_of(&shape, slow) < RIGHT);
    assert!(error_of(&shape, |x| candle_nn::ops::rms_norm_slow(x, &scale, 1e-5)) < RIGHT);
    assert!(error_of(&shape, |x| candle_nn::ops::softmax(x, 1)) < RIGHT);
}

/// What layers are made of, and what is right.
#[test]
fn the_rest_is_right() {
    let weight = |shape: &[usize]| {
        let count = shape.iter().product();
        Tensor::from_vec(values(count), shape, &Device::Cpu).unwrap()
    };
    let shape = [1, 2, 7, 7];
    for (stride, padding, dilation) in [(1, 0, 1), (2, 1, 1), (3, 2, 1), (2, 0, 2), (2, 2, 1)] {
        let kernel = weight(&[3, 2, 3, 3]);
        let of_input = |x: &Tensor| x.conv2d(&kernel, padding, stride, dilation, 1);
        assert!(error_of(&shape, of_input) < 100.0 * RIGHT);
        let x = weight(&shape);
        let of_kernel = |kernel: &Tensor| x.conv2d(kernel, padding, stride, dilation, 1);
        assert!(error_of(&[3, 2, 3, 3], of_kernel) < 100.0 * RIGHT);
        let kernel = weight(&[2, 3, 3, 3]);
        let output_padding = stride - 1;
        let transposed =
            |x: &Tensor| x.conv_transpose2d(&kernel, padding, output_padding, stride, dilation);
        let found = error_of(&shape, transposed);
        assert!(
            found < 100.0 * RIGHT,
            "{stride} {padding} {dilation}: {found}"
        );
        let transposed =
            |kernel: &Tensor| x.conv_transpose2d(kernel, padding, output_padding, stride, dilation);
        let found = error_of(&[2, 3, 3, 3], transposed);
        assert!(
            found < 100.0 * RIGHT,
            "{stride} {padding} {dilation}: {found}"
        );
    }
    let grouped = weight(&[4, 1, 3, 3]);
    assert!(error_of(&shape, |x| x.conv2d(&grouped, 1, 2, 1, 2)) < 100.0 * RIGHT);
    // The remainders of both axes must be alike, or candle refuses.
    let x = Var::ones((1, 2, 7, 6), DType::F64, &Device::Cpu).unwrap();
    let y = x.conv2d(&weight(&[3, 2, 3, 3]), 1, 2, 1, 1).unwrap();
    assert_eq!(
        refusal(&y),
        "shape mismatch in add, lhs: [1, 2, 7, 6], rhs: [1, 2, 7, 5]"
    );
    let shape = [1, 2, 7, 6];
    let mask = values(84).into_iter().map(|value| u8::from(value > 0.1));
    let mask = Tensor::from_vec(mask.collect::<Vec<u8>>(), &shape[..], &Device::Cpu).unwrap();
    let factor = weight(&[1, 2, 1, 1]);
    let column = indices(&[3, 0, 0, 5], &[4]);
    let gathered = indices(&[3, 0, 0, 5], &[1, 1, 1, 4]);
    let functions: [(&str, &Function<'_>); 24] = [
        ("relu", &|x| x.relu()),
        ("silu", &|x| x.silu()),
        ("sigmoid", &candle_nn::ops::sigmoid),
        ("elu", &|x| x.elu(0.7)),
        ("tanh", &|x| x.tanh()),
        ("erf", &|x| x.erf()),
        ("abs", &|x| x.abs()),
        ("exp", &|x| x.exp()),
        ("log", &|x| (x + 2.0)?.log()),
        ("sqrt", &|x| (x + 2.0)?.sqrt()),
        ("recip", &|x| (x + 2.0)?.recip()),
        ("powf", &|x| (x + 2.0)?.powf(2.5)),
        ("clamp", &|x| x.clamp(-0.5, 0.6)),
        ("where_cond", &|x| mask.where_cond(x, &(x * 3.0)?)),
        ("broadcast_mul", &|x| x.broadcast_mul(&factor)),
        ("broadcast_div", &|x| factor.broadcast_div(&(x + 2.0)?)),
        ("mean", &|x| x.broadcast_sub(&x.mean_keepdim((2, 3))?)),
        ("var", &|x| x.var_keepdim(3)),
        ("cat", &|x| Tensor::cat(&[x, &x.sqr()?, x], 1)),
        ("narrow", &|x| x.narrow(2, 1, 4)? * x.narrow(2, 3, 4)?),
        ("permute", &|x| x.permute((0, 2, 3, 1))?.flatten(1, 2)?.t()),
        ("index_select", &|x| x.index_select(&column, 3)),
        ("gather", &|x| {
            x.narrow(1, 0, 1)?.narrow(2, 0, 1)?.gather(&gathered, 3)
        }),
        ("pad", &|x| {
            x.pad_with_zeros(2, 1, 2)?.pad_with_same(3, 2, 1)
        }),
    ];
    for (name, function) in functions {
        let found = error_of(&shape, function);
        assert!(found < 100.0 * RIGHT, "{name}: {found}");
    }
}
