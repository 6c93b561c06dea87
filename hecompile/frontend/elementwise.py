"""Arithmetic and activations, element by element."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from hecompile.frontend.site import Clear, Result, Site, converts
from hecompile.ir.operation import Value
from hecompile.ir.tensor_ops import Activation, Add, Mul, Neg, Power, Sub
from hecompile.numeric import activations

LARGEST_EXPONENT = 16


def activate(site: Site, x: Value, name: str, **parameters: float) -> Value:
    """Append an activation."""
    function = activations.Activation(name, tuple(parameters.items()))
    return site.emit(Activation(x=x, functions=(str(function),)))


def scaled(site: Site, x: Value, factor: float) -> Value:
    """Append a product with a number, unless it is 1."""
    return x if factor == 1.0 else site.emit(Mul(x=x, y=site.lift(np.array(factor), "factor")))


@converts("Add", "Sub", "Mul")
def arithmetic(site: Site) -> Result:
    """Both operands secret, or one constant."""
    kind = {"Add": Add, "Sub": Sub, "Mul": Mul}[site.node.op_type]
    return site.emit(kind(x=site.value(0), y=site.value(1)))


@converts("Sum", "Mean")
def variadic(site: Site) -> Result:
    """Sum or mean of several tensors."""
    total = site.value(0)
    for index in range(1, len(site.inputs)):
        total = site.emit(Add(x=total, y=site.value(index)))
    return scaled(site, total, 1.0 / len(site.inputs)) if site.node.op_type == "Mean" else total


@converts("Div")
def divide(site: Site) -> Result:
    """Multiply by the reciprocal of a constant."""
    if not site.is_clear(1):
        site.refuse(
            "it divides by an encrypted value",
            "divide by a constant, or multiply by a value that the client computes and encrypts",
        )
    divisor = site.numbers(1, "divisors")
    if not divisor.all():
        site.invalid("it divides by zero")
    return site.emit(Mul(x=site.value(0), y=site.lift(1.0 / divisor)))


@converts("Neg")
def negate(site: Site) -> Result:
    """Change the sign."""
    return site.emit(Neg(x=site.value(0)))


@converts("Pow")
def power(site: Site) -> Result:
    """Raise to a small positive integer."""
    exponents = site.numbers(1, "exponents") if site.is_clear(1) else np.array([math.nan])
    exponent = float(exponents.flat[0]) if exponents.size else math.nan
    if not (exponents == exponent).all() or exponent not in range(1, LARGEST_EXPONENT + 1):
        site.refuse(
            "its exponent is not one constant integer "
            f"from 1 to {LARGEST_EXPONENT} (it is {_told(site, exponents)})",
            "use a small integer power or another activation, and retrain",
        )
    shape = np.broadcast_shapes(site.shape(0), exponents.shape)
    if shape != site.shape(0):
        site.refuse("its exponent has more axes than its base", "use a scalar exponent")
    return (
        site.value(0)
        if exponent == 1
        else site.emit(Power(x=site.value(0), exponent=int(exponent)))
    )


def _told(site: Site, exponents: activations.Array) -> str:
    if not site.is_clear(1):
        return "encrypted"
    values = np.unique(exponents)
    return f"{values[0]:g}" if values.size == 1 else "several numbers"


@converts("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Softsign", "Erf")
def plain_activation(site: Site) -> Result:
    """Activations without parameters."""
    names = {"HardSwish": "hard_swish"}
    name = names.get(site.node.op_type, site.node.op_type.lower())
    return activate(site, site.value(0), name)


@converts("LeakyRelu")
def leaky_relu(site: Site) -> Result:
    """`alpha` on the negative side."""
    return activate(site, site.value(0), "leaky_relu", alpha=site.number("alpha", 0.01))


@converts("Elu")
def elu(site: Site) -> Result:
    """`alpha * (exp(x) - 1)` on the negative side."""
    return activate(site, site.value(0), "elu", alpha=site.number("alpha", 1.0))


@converts("Celu")
def celu(site: Site) -> Result:
    """`alpha * elu(x / alpha)`."""
    alpha = site.number("alpha", 1.0)
    if alpha == 0.0:
        site.invalid("its alpha is 0, by which it divides")
    return scaled(site, activate(site, scaled(site, site.value(0), 1.0 / alpha), "elu"), alpha)


@converts("Selu")
def selu(site: Site) -> Result:
    """`gamma * elu(x, alpha)`."""
    alpha = site.number("alpha", 1.67326319217681884765625)
    gamma = site.number("gamma", 1.05070102214813232421875)
    return scaled(site, activate(site, site.value(0), "elu", alpha=alpha), gamma)


@converts("HardSigmoid")
def hard_sigmoid(site: Site) -> Result:
    """`clip(alpha * x + beta, 0, 1)`."""
    alpha, beta = site.number("alpha", 0.2), site.number("beta", 0.5)
    return activate(site, site.value(0), "hard_sigmoid", alpha=alpha, beta=beta)


@converts("Gelu")
def gelu(site: Site) -> Result:
    """Exact, or the approximation by tanh."""
    kind = site.text("approximate", "none")
    if kind not in ("none", "tanh"):
        site.invalid(f"its approximation '{kind}' is not one of ONNX's")
    return activate(site, site.value(0), "gelu", tanh=1.0 if kind == "tanh" else 0.0)


@converts("Swish")
def swish(site: Site) -> Result:
    """`x * sigmoid(alpha * x)`."""
    x = site.value(0)
    gate = activate(site, scaled(site, x, site.number("alpha", 1.0)), "sigmoid")
    return site.emit(Mul(x=x, y=gate))


@converts("Mish")
def mish(site: Site) -> Result:
    """`x * tanh(softplus(x))`."""
    x = site.value(0)
    return site.emit(Mul(x=x, y=activate(site, activate(site, x, "softplus"), "tanh")))


@converts("PRelu")
def parametric_relu(site: Site) -> Result:
    """`slope * x + (1 - slope) * relu(x)`, the slope a constant."""
    slope, x = site.numbers(1, "slopes"), site.value(0)
    linear = site.emit(Mul(x=x, y=site.lift(slope, "slope")))
    bent = site.emit(Mul(x=activate(site, x, "relu"), y=site.lift(1.0 - slope, "bend")))
    return site.emit(Add(x=linear, y=bent))


@converts("Clip")
def clip(site: Site) -> Result:
    """Keep within constant bounds."""
    low = _bound(site, 1, -math.inf)
    high = _bound(site, 2, math.inf)
    if (low, high) == (-math.inf, math.inf):
        return site.value(0)
    if (low, high) == (0.0, math.inf):
        return activate(site, site.value(0), "relu")
    return activate(site, site.value(0), "clip", min=low, max=high)


def _bound(site: Site, index: int, default: float) -> float:
    bound = site.numbers(index, "bounds") if site.given(index) else np.array(default)
    # Exporters write the largest float for "no bound".
    unbounded = abs(float(bound.flat[0])) >= np.finfo(np.float32).max
    return math.copysign(math.inf, float(bound.flat[0])) if unbounded else float(bound.flat[0])


@converts("Max", "Min")
def one_sided_clip(site: Site) -> Result:
    """Maximum or minimum with one constant number: a clip on one side."""
    secret = [i for i in range(len(site.inputs)) if not site.is_clear(i)]
    bounds = [site.numbers(i, "bounds") for i in range(len(site.inputs)) if site.is_clear(i)]
    values = {float(v) for bound in bounds for v in bound.ravel()}
    if (
        len(secret) != 1
        or len(values) != 1
        or any(b.ndim > len(site.shape(secret[0])) for b in bounds)
    ):
        site.refuse(
            f"{site.node.op_type} of several encrypted values is a comparison",
            "use Add or AveragePool instead and retrain; with one constant number it is a Clip",
        )
    bound, x = values.pop(), site.value(secret[0])
    if site.node.op_type == "Min":
        return activate(site, x, "clip", max=bound)
    return activate(site, x, "relu") if bound == 0.0 else activate(site, x, "clip", min=bound)


@converts("Where")
def select(site: Site) -> Result:
    """Choose by a constant condition: `condition * x + (1 - condition) * y`."""
    condition = site.numbers(0, "conditions")
    x = site.emit(Mul(x=site.value(1), y=site.lift(condition, "taken")))
    y = site.emit(Mul(x=site.value(2), y=site.lift(1.0 - condition, "left")))
    return site.emit(Add(x=x, y=y))


@converts("Identity")
def identity(site: Site) -> Result:
    """The same value."""
    return site.value(0)


@converts("Cast", "CastLike")
def cast(site: Site) -> Result:
    """Between floating-point types: the same value."""
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    wanted = site.integer("to", TensorProto.FLOAT)
    if site.node.op_type == "CastLike" and site.is_clear(1):
        wanted = helper.np_dtype_to_tensor_dtype(site.constant(1, "type").dtype)
    if wanted not in floats:
        site.refuse(
            "it turns encrypted real numbers into integers or short floats, which rounds",
            "keep floats, and round after decryption",
        )
    state = site.state(0)
    if isinstance(state, Clear):
        # Only the type of the encrypted tensor matters, and that is a real number.
        return Clear(state.name, state.array.astype(np.float64))
    return site.value(0)


@converts("Dropout")
def dropout(site: Site) -> Result:
    """Nothing at inference."""
    training = site.given(2) and bool(site.constant(2, "training mode").any())
    if training or (len(site.wanted) > 1 and site.wanted[1]):
        site.refuse("it is in training mode", "export the model after model.eval()")
    return site.value(0)
