//! Times for people: records hold UTC, people live in a time zone.

use std::{
    mem::MaybeUninit,
    time::{SystemTime, UNIX_EPOCH},
};

/// A time in RFC 3339 as local time with its distance from UTC: `2026-11-30 06:27:20 +01:00`. Another text stays.
pub fn local(utc: &str) -> String {
    let time = humantime::parse_rfc3339(utc).ok();
    time.and_then(broken_down).map_or_else(|| utc.into(), |parts| written(&parts))
}

fn broken_down(time: SystemTime) -> Option<libc::tm> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs() as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: the structure is read only if the call filled it.
    unsafe {
        let filled = libc::localtime_r(&seconds, parts.as_mut_ptr());
        (!filled.is_null()).then(|| parts.assume_init())
    }
}

fn written(parts: &libc::tm) -> String {
    let (year, month, day) = (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
    let time = format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec);
    let minutes = parts.tm_gmtoff / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let zone = match minutes.abs() {
        0 => "UTC".into(),
        minutes => format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
    };
    format!("{year:04}-{month:02}-{day:02} {time} {zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_its_zone() {
        // SAFETY: plain data, for which zeros are valid.
        let mut parts: libc::tm = unsafe { std::mem::zeroed() };
        (parts.tm_year, parts.tm_mon, parts.tm_mday, parts.tm_hour, parts.tm_gmtoff) = (126, 10, 30, 6, 0);
        assert_eq!(written(&parts), "2026-11-30 06:00:00 UTC");
        parts.tm_gmtoff = -12600;
        assert_eq!(written(&parts), "2026-11-30 06:00:00 -03:30");
        parts.tm_gmtoff = 3600;
        assert_eq!(written(&parts), "2026-11-30 06:00:00 +01:00");
        assert_eq!(local("whenever"), "whenever");
    }
}
