//! Times of a token (RFC 7519 §2, NumericDate): seconds since the Unix epoch, with a fraction or an exponent if the issuer
//! writes one. They are read from the digits, so that no rounding of floating-point numbers moves them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::policy::claims::NotSuch;

/// A time, between two whole seconds or on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumericDate {
    /// The last whole second that is not after it.
    pub floor: i64,
    /// The first whole second that is not before it.
    pub ceiling: i64,
}

/// The times of a token. `null` is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Times {
    /// `exp`: the end (RFC 7519 §4.1.4).
    pub expires: Option<NumericDate>,
    /// `nbf`: the beginning (§4.1.5).
    pub begins: Option<NumericDate>,
    /// `iat`: when it was issued (§4.1.6).
    pub issued: Option<NumericDate>,
}

impl Times {
    /// Reads the times of an object of claims, which was read before.
    ///
    /// # Errors
    /// One of them is something other than a number from 0.
    pub fn read(claims: &str) -> Result<Self, NotSuch> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            exp: Option<&'a RawValue>,
            #[serde(borrow)]
            nbf: Option<&'a RawValue>,
            #[serde(borrow)]
            iat: Option<&'a RawValue>,
        }
        let raw: Raw<'_> = serde_json::from_str(claims).map_err(|_| NotSuch)?;
        let time = |raw: Option<&RawValue>| raw.map(|raw| parse(raw.get()).ok_or(NotSuch)).transpose();
        Ok(Self { expires: time(raw.exp)?, begins: time(raw.nbf)?, issued: time(raw.iat)? })
    }
}

/// Reads a number of JSON (RFC 8259 §6) that is not negative and fits into 63 bits.
fn parse(text: &str) -> Option<NumericDate> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if digits().all(|digit| digit == b'0') {
        return Some(NumericDate { floor: 0, ceiling: 0 });
    }
    // How many digits stand before the point.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let point = usize::try_from(point.max(0)).ok()?;
    // Digits before the first that is not 0 cost nothing; 63 bits have 19 others.
    let leading = digits().take_while(|digit| *digit == b'0').count();
    if point.saturating_sub(leading) > 19 {
        return None;
    }
    let mut floor: i64 = 0;
    for digit in digits().chain(std::iter::repeat(b'0')).take(point) {
        floor = floor.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    let exact = digits().skip(point).all(|digit| digit == b'0');
    Some(NumericDate { floor, ceiling: if exact { floor } else { floor.checked_add(1)? } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Result<Option<(i64, i64)>, NotSuch> {
        Times::read(&format!(r#"{{"iss":"x","exp":{text}}}"#)).map(|t| t.expires.map(|t| (t.floor, t.ceiling)))
    }

    #[test]
    fn every_spelling_of_a_number_is_read_exactly() {
        for (text, floor, ceiling) in [
            ("1800000000", 1_800_000_000, 1_800_000_000),
            ("1800000000.0", 1_800_000_000, 1_800_000_000),
            ("1800000000.25", 1_800_000_000, 1_800_000_001),
            ("1.8E9", 1_800_000_000, 1_800_000_000),
            ("1.800000000000001e+9", 1_800_000_000, 1_800_000_001),
            ("18000000005e-1", 1_800_000_000, 1_800_000_001),
            // Nearer to the whole second than a double can tell.
            ("1800000000.00000000000000000001", 1_800_000_000, 1_800_000_001),
            ("1799999999.99999999999999999999", 1_799_999_999, 1_800_000_000),
            ("0", 0, 0),
            ("0e99999", 0, 0),
            ("1e-99999", 0, 1),
            ("0.00001e14", 1_000_000_000, 1_000_000_000),
            ("9223372036854775807", i64::MAX, i64::MAX),
        ] {
            assert_eq!(at(text), Ok(Some((floor, ceiling))), "{text}");
        }
        assert_eq!(at("null"), Ok(None));
    }

    #[test]
    fn what_is_no_time_is_an_error() {
        for bad in ["\"1800000000\"", "-1", "-1e9", "[1]", "true", "{}", "18446744073709551615", "1e19", "1e99999"] {
            assert_eq!(at(bad), Err(NotSuch), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn where_the_point_stands_makes_no_difference(seconds in 1i64..4_000_000_000, micros in 0u32..1_000_000, shift in 0usize..12) {
            let digits = format!("{seconds}{micros:06}");
            let ceiling = seconds + i64::from(micros > 0);
            let cut = digits.len().saturating_sub(shift).max(1);
            let exponent = i64::try_from(digits.len() - cut).unwrap() - 6;
            let text = format!("{}.{}0e{exponent}", &digits[..cut], &digits[cut..]);
            prop_assert_eq!(at(&text), Ok(Some((seconds, ceiling))), "{}", text);
        }
    }
}
