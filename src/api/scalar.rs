//! Values that users write as text: durations (GEP-2257) and sizes (whole Kubernetes quantities). What is written is
//! kept as written; reading it is a function that says what is wrong. Knows no field and no limit of a field.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Pattern of a duration (GEP-2257): up to four parts of at most five digits and a unit.
pub const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Pattern of a size that is written as text: a whole number of bytes with an optional suffix, no fractions.
pub const SIZE_PATTERN: &str = "^[1-9][0-9]{0,11}(k|M|G|Ki|Mi|Gi)?$";

/// Whether a text is a DNS name (RFC 1123 §2.1) as Kubernetes writes it: in lower case, without a dot at its end.
pub fn is_lower_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether a text is a DNS-1123 label, whatever its length.
pub fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text may be the name of an object: a DNS-1123 subdomain of at most 253 characters.
pub fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Why a value cannot be read: a sentence that names the value and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// A length of time as users write it, such as `30s`, `1h30m` or `500ms` (GEP-2257).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

impl Duration {
    /// The length of time.
    ///
    /// # Errors
    /// The text is not one to four parts of at most five digits and a unit (`h`, `m`, `s`, `ms`).
    pub fn parse(&self) -> Result<std::time::Duration, ValueError> {
        let bad = || ValueError(format!("{:?} is not a duration such as 30s, 1h30m or 500ms", clip(&self.0)));
        let mut rest = self.0.as_str();
        let mut total = std::time::Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 {
                return Err(bad());
            }
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| bad())?;
            let (milliseconds, length) = match unit.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b'h', ..] => (3_600_000, 1),
                [b'm', ..] => (60_000, 1),
                [b's', ..] => (1_000, 1),
                _ => return Err(bad()),
            };
            // At most 99999 h in each of four parts: far from overflow.
            total += std::time::Duration::from_millis(number * milliseconds);
            rest = unit.get(length..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(total);
            }
        }
        Err(bad())
    }
}

impl From<&str> for Duration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": DURATION_PATTERN})
    }
}

/// A number of bytes as users write it: a whole number, or text such as `64Ki` (1024) or `64k` (1000).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// A plain number of bytes.
    Bytes(i64),
    /// A number with an optional suffix `k`, `M`, `G`, `Ki`, `Mi` or `Gi`.
    Text(String),
}

impl Size {
    /// The number of bytes, at least 1.
    ///
    /// # Errors
    /// Zero, a negative number, a fraction or another suffix.
    pub fn bytes(&self) -> Result<u64, ValueError> {
        let bad = |shown: &dyn fmt::Display| {
            ValueError(format!("{shown} is not a size such as 65536 or 64Ki; the suffixes are k, M, G, Ki, Mi and Gi"))
        };
        match self {
            Self::Bytes(bytes) => u64::try_from(*bytes).ok().filter(|b| *b > 0).ok_or_else(|| bad(bytes)),
            Self::Text(text) => {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                let (number, suffix) = text.split_at(digits);
                let unit: u64 = match suffix {
                    "" => 1,
                    "k" => 1_000,
                    "M" => 1_000_000,
                    "G" => 1_000_000_000,
                    "Ki" => 1 << 10,
                    "Mi" => 1 << 20,
                    "Gi" => 1 << 30,
                    _ => return Err(bad(&format_args!("{:?}", clip(text)))),
                };
                match number.parse::<u64>() {
                    // At most 12 digits and 2^30: below 2^70, so multiply with care.
                    Ok(n) if n > 0 && digits <= 12 && !number.starts_with('0') => {
                        n.checked_mul(unit).ok_or_else(|| bad(&format_args!("{:?}", clip(text))))
                    }
                    _ => Err(bad(&format_args!("{:?}", clip(text)))),
                }
            }
        }
    }
}

impl From<&str> for Size {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 16, "pattern": SIZE_PATTERN})
    }
}

/// What an error shows of a text: enough to find it, never a page of it.
fn clip(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<u128> {
        Duration::from(text).parse().ok().map(|d| d.as_millis())
    }

    #[test]
    fn durations_are_read_as_gep_2257_writes_them() {
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1m500ms"), Some(60_500));
        assert_eq!(ms("0s"), Some(0));
        assert_eq!(ms("99999h99999h99999h99999h"), Some(4 * 99_999 * 3_600_000));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_by_name() {
        for text in ["", "30", "s", "1d", "-1s", "1.5s", "100000s", "1s1s1s1s1s", "1s ", " 1s", "1S", "1µs", "1hm"] {
            assert_eq!(ms(text), None, "{text:?}");
        }
        let error = Duration::from("soon").parse().unwrap_err().to_string();
        assert!(error.contains("\"soon\"") && error.contains("30s"), "{error}");
    }

    #[test]
    fn sizes_are_whole_bytes() {
        assert_eq!(Size::from("64Ki").bytes(), Ok(65_536));
        assert_eq!(Size::from("64k").bytes(), Ok(64_000));
        assert_eq!(Size::from("16Mi").bytes(), Ok(16 << 20));
        assert_eq!(Size::from("7").bytes(), Ok(7));
        assert_eq!(Size::Bytes(7).bytes(), Ok(7));
        assert_eq!(Size::from("999999999999").bytes(), Ok(999_999_999_999));
        for text in ["", "Ki", "0", "0Ki", "-1", "1.5Mi", "100m", "1e3", "01", "1 Ki", "1KiB", "9999999999999"] {
            assert!(Size::from(text).bytes().is_err(), "{text:?}");
        }
        assert!(Size::from("999999999999Gi").bytes().is_err());
        assert!(Size::Bytes(0).bytes().is_err());
        assert!(Size::Bytes(-5).bytes().unwrap_err().to_string().starts_with("-5 is not"));
    }

    #[test]
    fn an_error_never_repeats_a_page_of_text() {
        let long = "x".repeat(10_000);
        assert!(Size::from(long.as_str()).bytes().unwrap_err().to_string().len() < 300);
        assert!(Duration::from(long.as_str()).parse().unwrap_err().to_string().len() < 300);
    }
}
