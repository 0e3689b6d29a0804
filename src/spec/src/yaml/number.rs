//! Numbers of YAML's core schema, and the form of them that JavaScript prints as it is written.

use serde_json::Number;

/// The largest whole number that every JSON and JavaScript reader keeps exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// A plain scalar, as a number.
#[derive(Debug, PartialEq)]
pub enum Numeric {
    /// It is text.
    No,
    /// A number that is printed as it is written.
    Exact(Number),
    /// A number that is printed differently: as this, or without a text if even the value would change.
    Changed(Option<String>),
}

impl Numeric {
    /// Reads a plain scalar.
    pub fn of(text: &str) -> Numeric {
        let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
            Some(unsigned) => (text.starts_with('-'), unsigned),
            None => (false, text),
        };
        let whole = if let Some(octal) = text.strip_prefix("0o") {
            is_all(octal, |c| c.is_digit(8)).then(|| i64::from_str_radix(octal, 8))
        } else if let Some(hex) = text.strip_prefix("0x") {
            is_all(hex, |c| c.is_ascii_hexdigit()).then(|| i64::from_str_radix(hex, 16))
        } else if is_all(unsigned, |c| c.is_ascii_digit()) {
            Some(unsigned.parse::<i64>().map(|whole| if negative { -whole } else { whole }))
        } else {
            None
        };
        let number = match whole {
            Some(Ok(whole)) if whole.abs() <= MAX_SAFE_INTEGER => Number::from(whole),
            Some(_) => return Numeric::Changed(None),
            None if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&unsigned) => {
                return Numeric::Changed(None);
            }
            None if !is_float(unsigned) => return Numeric::No,
            None => match text.parse::<f64>().ok().and_then(Number::from_f64) {
                Some(number) => number,
                None => return Numeric::Changed(None),
            },
        };
        let printed = text_of(&number);
        match printed.parse::<i64>() {
            Ok(whole) if whole.abs() > MAX_SAFE_INTEGER => Numeric::Changed(None),
            Err(_) if is_all(printed.trim_start_matches('-'), |c| c.is_ascii_digit()) => Numeric::Changed(None),
            _ if printed == text => Numeric::Exact(number),
            _ => Numeric::Changed(Some(printed)),
        }
    }
}

fn is_all(text: &str, test: fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(test)
}

/// Returns whether a text without its sign is a number with a point or an exponent.
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    digits(before)
        && digits(after)
        && !(before.is_empty() && after.is_empty())
        && exponent.is_none_or(|exponent| {
            is_all(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), |c| c.is_ascii_digit())
        })
}

/// Returns a number as JavaScript prints it: the only form in which a plain scalar is read as a number.
/// Source: ECMAScript, Number::toString.
pub fn text_of(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) => ryu_js::Buffer::new().format(float).to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_what_javascript_prints_as_it_is_written() {
        for exact in ["0", "-7", "12", "9007199254740991", "1.5", "0.000001", "1e-7", "1e+21", "-2.5e-9", "123456.789"]
        {
            assert!(matches!(Numeric::of(exact), Numeric::Exact(_)), "{exact}: {:?}", Numeric::of(exact));
        }
        for (written, printed) in [
            ("1.10", "1.1"),
            ("1.0", "1"),
            ("1.", "1"),
            (".5", "0.5"),
            ("1e3", "1000"),
            ("72225e2", "7222500"),
            ("+4912345", "4912345"),
            ("0123", "123"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("3.14159265358979323846", "3.141592653589793"),
            ("0.0000001", "1e-7"),
            ("1e21", "1e+21"),
            ("1E5", "100000"),
        ] {
            assert_eq!(Numeric::of(written), Numeric::Changed(Some(printed.to_owned())), "{written}");
        }
        for lost in
            ["9007199254740993", "123456789012345678", "-99999999999999999999", "7e10421", ".inf", "-.INF", ".nan"]
        {
            assert_eq!(Numeric::of(lost), Numeric::Changed(None), "{lost}");
        }
        for text in ["1_000", "12:30", "2026-06-01", "1.2.3", "0b11", "0x", "0o9", "+", ".", "e5", "1e", "1,5", "١"] {
            assert_eq!(Numeric::of(text), Numeric::No, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_decimal_text_becomes_another(
            text in "[-+]?[0-9]{0,22}(\\.[0-9]{0,22})?([eE][-+]?[0-9]{1,4})?|0[xo][0-9a-fA-F]{1,17}|[-+.0-9eExo_:]{1,12}",
        ) {
            match Numeric::of(&text) {
                Numeric::No => {}
                Numeric::Exact(number) => prop_assert_eq!(text_of(&number), text),
                Numeric::Changed(None) => {}
                Numeric::Changed(Some(printed)) => {
                    prop_assert_ne!(&printed, &text);
                    prop_assert!(matches!(Numeric::of(&printed), Numeric::Exact(_)), "{} → {}", text, printed);
                }
            }
        }

        #[test]
        fn every_number_is_read_as_it_is_printed(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let number = Number::from_f64(number).unwrap();
            let printed = text_of(&number);
            let is_large_whole = number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() > 9e15);
            match Numeric::of(&printed) {
                Numeric::Exact(read) => prop_assert_eq!(read.as_f64(), number.as_f64()),
                other => prop_assert!(is_large_whole, "{} is {:?}", printed, other),
            }
        }
    }
}
