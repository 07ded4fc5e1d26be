//! The date of an access log line: `17/May/2015:10:05:03 +0000`.

/// Bytes of a date between its brackets.
pub(super) const DATE_BYTES: usize = 26;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The last second of the year 9999, since the Unix epoch.
const LATEST: i64 = 253_402_300_799;

/// Reads a date as microseconds since the Unix epoch, UTC; `None` unless every field is in range.
///
/// A leap second (`:60`) is the first instant of the next minute.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let text: &[u8; DATE_BYTES] = text.try_into().ok()?;
    let separators = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':'), (20, b' ')];
    if separators.iter().any(|&(at, byte)| text[at] != byte) {
        return None;
    }
    let day = digits(&text[0..2])?;
    let month = MONTHS.iter().position(|name| **name == text[3..6])?;
    let year = digits(&text[7..11])?;
    let (hour, minute, second) =
        (digits(&text[12..14])?, digits(&text[15..17])?, digits(&text[18..20])?);
    let sign = match text[21] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (zone_hours, zone_minutes) = (digits(&text[22..24])?, digits(&text[24..26])?);

    if year < 1970 || day < 1 || day > days_in(month, year) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 || zone_hours > 23 || zone_minutes > 59 {
        return None;
    }
    let local = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let offset = sign * (zone_hours * 3_600 + zone_minutes * 60);
    // West of Greenwich the last hours of 9999 belong to a year that the formats of dates do not know.
    let at = local - offset;
    (at <= LATEST).then_some(at * 1_000_000)
}

/// Whether microseconds since the Unix epoch are a date that the store and all formats know.
pub(super) fn is_in_range(at: i64) -> bool {
    (0..=LATEST * 1_000_000).contains(&at)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// `month` counts from 0.
fn days_in(month: usize, year: i64) -> i64 {
    const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    DAYS[month] + i64::from(month == 1 && is_leap(year))
}

fn days_since_epoch(year: i64, month: usize, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let past = year - 1;
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    let years = past * 365 + past / 4 - past / 100 + past / 400 - 719_162;
    years + BEFORE[month] + i64::from(month > 1 && is_leap(year)) + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    #[test]
    fn a_date_counts_from_the_epoch_in_utc() {
        assert_eq!(parse(b"01/Jan/1970:00:00:00 +0000"), Some(0));
        assert_eq!(parse(b"17/May/2015:10:05:03 +0000"), Some(1_431_857_103_000_000));
        assert_eq!(
            parse(b"17/May/2015:12:35:03 +0230"),
            parse(b"17/May/2015:10:05:03 +0000"),
            "east of Greenwich the same instant has a later local time"
        );
        assert_eq!(parse(b"17/May/2015:05:05:03 -0500"), parse(b"17/May/2015:10:05:03 +0000"));
        assert_eq!(parse(b"31/Dec/2016:23:59:60 +0000"), parse(b"01/Jan/2017:00:00:00 +0000"));
    }

    #[test]
    fn what_no_calendar_knows_is_not_a_date() {
        for text in [
            "29/Feb/2015:10:05:03 +0000",
            "00/May/2015:10:05:03 +0000",
            "31/Apr/2015:10:05:03 +0000",
            "17/may/2015:10:05:03 +0000",
            "17/May/0000:10:05:03 +0000",
            "17/May/2015:24:00:00 +0000",
            "17/May/2015:10:60:03 +0000",
            "17/May/2015:10:05:03 +9999",
            "17/May/2015:10:05:03 00000",
            "17/May/2015:10:05:0x +0000",
            "17-May-2015:10:05:03 +0000",
            "31/Dec/9999:23:59:59 -0001",
            "17/May/2015:10:05:03 +000",
            "",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert!(parse(b"29/Feb/2016:10:05:03 +0000").is_some());
    }

    proptest! {
        #[test]
        fn every_instant_reads_as_chrono_writes_it(
            seconds in 0_i64..253_402_300_799,
            offset_minutes in -14 * 60..14 * 60_i32,
        ) {
            let zone = chrono::FixedOffset::east_opt(offset_minutes * 60).expect("within a day");
            let at = DateTime::from_timestamp(seconds, 0).expect("in range").with_timezone(&zone);
            let text = at.format("%d/%b/%Y:%H:%M:%S %z").to_string();
            prop_assume!(text.len() == DATE_BYTES && &text[7..11] >= "1970");
            prop_assert_eq!(parse(text.as_bytes()), Some(seconds * 1_000_000));
        }
    }
}
