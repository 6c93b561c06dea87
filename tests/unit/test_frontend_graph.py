"""What the importer makes of graphs: folding, the client's part, dead nodes, names, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from hecompile.errors import UnsupportedError
from hecompile.frontend import import_onnx
from hecompile.frontend.refusals import REASONS
from hecompile.frontend.site import CONVERTERS
from hecompile.ir.movement_ops import Gather, Slice
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Lstm
from hecompile.ir.tensor_ops import Activation, AveragePool, Output
from tests.differential.onnx_cases import AnyArray, build, check, random

ROWS = "float[N,4] x"


def imported(
    body: str, inputs: str = ROWS, outputs: str = "float y", **weights: AnyArray
) -> Program:
    return import_onnx(build(body, inputs, outputs, weights))


def names(program: Program) -> list[str]:
    return [op.name.removeprefix("tensor.") for op in program]


def refused(body: str, inputs: str = ROWS, **weights: AnyArray) -> str:
    with pytest.raises(UnsupportedError) as caught:
        imported(body, inputs, "float y", **weights)
    return str(caught.value)


def test_program_text_round_trips() -> None:
    weights = {"w": random(1, 8, 3), "r": random(1, 8, 2), "conv/kernel:0": random(3, 2, 3)}
    model = build(
        "t = Conv(x, k) u = Transpose<perm=[2,0,1]>(t) y, h, c = LSTM<hidden_size=2>(u, w, r) "
        "z = Clip(h, low)",
        "float[N,2,9] x",
        "float y, float z",
        {**weights, "k": random(3, 2, 3), "low": np.array(-0.5, np.float32)},
    )
    model.graph.node[0].name = 'größe/"conv"\\1'
    program = import_onnx(model)
    assert parse(print_program(program, inline_elements=10**6)) == program


def test_constant_subgraphs_fold_to_one_constant() -> None:
    body = """
      t = Transpose(w) u = Mul(t, t) s = ReduceSum<keepdims=1>(u) q = Sqrt(s)
      n = Div(u, q) y = MatMul(x, n)
    """
    program = imported(body, w=random(3, 4))
    assert names(program) == ["input", "constant", "matmul", "output"]
    weight = random(3, 4).T ** 2
    (constant,) = program.constants.values()
    expected = weight / np.sqrt((weight.astype(np.float64)).sum())
    np.testing.assert_allclose(constant.array, expected, rtol=1e-6)


def test_equal_constants_are_shared() -> None:
    program = imported("a = Add(x, c) b = Mul(a, d) y = Add(b, c)", c=random(4), d=random(4))
    assert names(program) == ["input", "constant", "add", "mul", "add", "output"]


def test_locations_are_node_names_or_made_up() -> None:
    model = build("t = Relu(x) y = Neg(t)", ROWS)
    model.graph.node[0].name = "/act/Relu"
    locations = [op.location for op in import_onnx(model)]
    assert locations == ["x", "/act/Relu", "Neg:y", ""]


def test_dead_nodes_are_left_out_whatever_they_are() -> None:
    program = imported("t = Relu(x) m = MaxPool<kernel_shape=[2]>(t) y = Neg(x)")
    assert names(program) == ["input", "neg", "output"]


def test_unused_inputs_stay_in_the_interface() -> None:
    program = imported("y = Relu(x)", "float[N,4] x, float[N,2] z")
    assert names(program) == ["input", "input", "activation", "output"]


def test_one_lstm_operation_for_each_used_result() -> None:
    weights = {"w": random(1, 8, 3), "r": random(1, 8, 2)}
    body = "v, h, c = LSTM<hidden_size=2>(x, w, r) y = Relu(h)"
    program = imported(body, "float[5,1,3] x", "float y, float c", **weights)
    assert [op.output for op in program.select(Lstm)] == ["Y_h", "Y_c"]
    assert program.select(Lstm)[0].activations == ("sigmoid", "tanh", "tanh")


def test_selections_are_slices_where_they_can_be() -> None:
    program = imported("y = Gather<axis=1>(x, i)", i=np.array([1, 3]))
    assert [(op.start, op.stop, op.step) for op in program.select(Slice)] == [(1, 4, 2)]
    program = imported("y = Gather<axis=1>(x, i)", i=np.array([3, 1]))
    assert [op.indices for op in program.select(Gather)] == [(3, 1)]


@pytest.mark.parametrize(
    ("body", "post", "operations"),
    [
        ("y = Softmax(x)", ("softmax(axis=1)",), []),
        ("t = Softmax(x) y = Identity(t)", ("softmax(axis=1)",), []),
        (
            "t = Softmax(x) a = ArgMax<axis=1, keepdims=0>(t) y = Cast<to=1>(a)",
            ("softmax(axis=1)", "argmax(axis=1 keepdims=0)"),
            [],
        ),
        ("y = Sigmoid(x)", ("sigmoid",), []),
        ("t = Sigmoid(x) y = Unsqueeze(t, i)", ("sigmoid",), ["reshape"]),
        ("t = Sigmoid(x) y = Mul(t, x)", (), ["activation", "mul"]),
        (
            "t = Softmax(x) y = Gather<axis=1>(t, i)",
            ("softmax(axis=1)", "slice(axis=1 start=2 stop=3 step=1)"),
            [],
        ),
        ("t = Softmax(x) y = Squeeze(t, o)", ("softmax(axis=1)", "reshape(dims=4)"), []),
    ],
)
def test_the_end_of_the_model_moves_to_the_client(
    body: str, post: tuple[str, ...], operations: list[str]
) -> None:
    program = imported(body, "float[1,4] x", i=np.array([2]), o=np.array([0]))
    (output,) = program.select(Output)
    assert output.post == post
    assert names(program)[1:-1] == operations


def test_a_sigmoid_read_inside_and_outside_is_computed_encrypted() -> None:
    program = imported(
        "y = Sigmoid(x) z = MatMul(y, w)", outputs="float y, float z", w=random(4, 2)
    )
    assert [op.post for op in program.select(Output)] == [(), ()]
    assert len(program.select(Activation)) == 1


def test_local_functions_are_inlined() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        case (float[N,4] x) => (float[N,4] y) { t = own.twice(x) y = own.twice(t) }
        <domain: "own", opset_import: ["" : 17]>
        twice (a) => (b) { c = Relu(a) b = Add(c, a) }
        """
    )
    assert names(check(model)) == ["input", "activation", "add", "activation", "add", "output"]


@pytest.mark.parametrize(("condition", "operation"), [(True, "neg"), (False, "activation")])
def test_a_branch_on_a_constant_is_taken(condition: bool, operation: str) -> None:
    body = """
      y = If (c) <then_branch = a () => (float[N,4] u) { u = Neg(x) },
                  else_branch = b () => (float[N,4] v) { v = Relu(x) }>
    """
    model = build(body, ROWS, weights={"c": np.array(condition)})
    assert names(check(model))[1:-1] == [operation]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_guard_around_softplus_is_dropped(scale: float) -> None:
    body = "q = Softplus(x) g = Greater(x, t) y = Where(g, x, q)"
    if scale != 1.0:
        body = "a = Mul(x, s) p = Softplus(a) q = Div(p, s) g = Greater(a, t) y = Where(g, x, q)"
    constants = {"s": np.array(scale, np.float32), "t": np.array(20, np.float32)}
    program = check(build(body, ROWS, weights=constants))
    assert [op.functions for op in program.select(Activation)] == [("softplus",)]
    constants["t"] = np.array(1, np.float32)
    assert "(Greater)" in refused(body, ROWS, **constants)


def test_every_unsupported_node_is_listed_with_its_name_and_a_remedy() -> None:
    body = """
      m = MaxPool<kernel_shape=[2], strides=[2]>(x)  p = AveragePool<kernel_shape=[2]>(m)
      q = com.acme.Foo(p)  r = Relu(q)  n = LayerNormalization(p, s)  e = Exp(r)
      g = CumSum(n, w)  t = Softmax(n)  d = Div(t, n)  y = Unheard(d)
    """
    model = build(
        body,
        "float[N,3,8] x",
        "float y, float g, float e",
        {"s": random(3), "w": random(1, 6, 3), "u": random(1, 6, 2)},
        domains=', "com.acme" : 1',
    )
    model.graph.node[0].name = "/pool/MaxPool"
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(model)
    lines = str(caught.value).splitlines()
    assert "8 nodes of the model have no encrypted counterpart" in lines[0]
    assert "node '/pool/MaxPool' (MaxPool)" in lines[1]
    assert "replace it by AveragePool with the same window, and retrain" in lines[1]
    assert "'com.acme' is not supported" in lines[2]
    operators = ["MaxPool", "Foo", "LayerNormalization", "Exp", "CumSum"]
    operators += ["Softmax", "Div", "Unheard"]
    for operator, line in zip(operators, lines[1:], strict=True):
        assert f"({operator})" in line
        assert "; remedy: " in line


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Pow(x, c)", "it is 0.5"),
        ("y = Pow(x, x)", "it is encrypted"),
        ("y = Div(c, x)", "divides by an encrypted value"),
        ("t = Cast<to=7>(x) f = Cast<to=1>(t) y = Add(f, x)", "which rounds"),
        ("y = Max(x, x)", "is a comparison"),
        ("a = ArgMax<axis=1, select_last_index=1>(x) y = Cast<to=1>(a)", "chooses the last"),
        ("y = RandomNormalLike(x)", "draws random numbers"),
        ("r = RandomNormal<shape=[4]>() y = Add(x, r)", "draws random numbers"),
        ("y, m = Dropout(x, c, k)", "training mode"),
        ("t = Softmax(x) y = Mul(t, t)", "at the very end of the model"),
        ("s = Softmax(x) y = Gather<axis=1>(s, i)", "reorders it"),
        ("m = ReduceSum<keepdims=0>(x) y = Clip(x, m)", "bounds are computed from an encrypted"),
    ],
)
def test_refusals(body: str, message: str) -> None:
    weights = {"c": np.array(0.5, np.float32), "k": np.array(True), "i": np.array([3, 1])}
    assert message in refused(body, ROWS, **weights)


def test_weights_from_an_input_are_refused() -> None:
    text = refused("y = Conv(x, k)", "float[3,3,5] x, float[2,3,3] k")
    assert "its weights are computed from an encrypted input" in text


def test_products_of_two_secrets_up_to_a_size() -> None:
    inputs = "float[N,2,6] x, float[N,6,3] z"
    assert "matmul" not in names(check(build("y = MatMul(x, z)", inputs)))
    text = refused("y = MatMul(x, z)", "float[N,64,64] x, float[N,64,64] z")
    assert "262144 products of encrypted numbers" in text


def test_three_spatial_axes_are_refused() -> None:
    text = refused("y = GlobalAveragePool(x)", "float[N,2,3,3,3] x")
    assert "3 spatial axes; 1 and 2 are supported" in text


def test_sequence_lengths_must_be_the_whole_length() -> None:
    weights = {"w": random(1, 8, 3), "r": random(1, 8, 2), "n": np.array([4], np.int32)}
    text = refused("y, h = LSTM<hidden_size=2>(x, w, r, , n)", "float[5,1,3] x", **weights)
    assert "sequence lengths are not all 5" in text


def test_rearranging_operators_become_gathers() -> None:
    check(build("y = DepthToSpace<blocksize=2>(x)", "float[N,4,2,3] x"))
    check(
        build("y = GatherElements<axis=1>(x, i)", "float[1,4] x", weights={"i": np.array([[2, 0]])})
    )
    weights = {"i": np.array([[[1], [0], [3]]])}
    check(build("y = GatherND<batch_dims=1>(x, i)", "float[1,4] x", weights=weights))


def test_pool_attributes_arrive() -> None:
    body = "y = AveragePool<kernel_shape=[3], strides=[2], pads=[1,0], ceil_mode=1>(x)"
    (pool,) = imported(body, "float[N,1,8] x").select(AveragePool)
    assert (pool.kernel, pool.strides, pool.pads, pool.dilations) == ((3,), (2,), (1, 0), (1,))
    assert (pool.ceil, pool.count_include_pad) == (True, False)


def test_no_operator_is_both_converted_and_refused_and_all_exist() -> None:
    assert not (CONVERTERS.keys() & REASONS.keys())
    for operator in CONVERTERS.keys() | REASONS.keys():
        assert onnx.defs.has(operator, onnx.defs.onnx_opset_version()), operator
