"""The built-in passes, one a file; importing this package registers them."""

from hecompile.passes import (
    assign_scales,
    calibrate_slots,
    check_levels,
    check_parameters,
    check_precision,
    check_scales,
    choose_parameters,
    cse,
    dce,
    insert_management,
    insert_refresh,
    lower_to_slots,
    normalise,
    plan_rotations,
    require_polynomial,
)

__all__ = [
    "assign_scales",
    "calibrate_slots",
    "check_levels",
    "check_parameters",
    "check_precision",
    "check_scales",
    "choose_parameters",
    "cse",
    "dce",
    "insert_management",
    "insert_refresh",
    "lower_to_slots",
    "normalise",
    "plan_rotations",
    "require_polynomial",
]
