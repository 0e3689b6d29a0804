//! JSON with comments and trailing commas, as wrangler reads it. Knows the dialect, not what a file means.

use jsonc_parser::ParseOptions;

/// The dialect: comments and trailing commas, and nothing else that JSON doesn't have.
pub const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};
