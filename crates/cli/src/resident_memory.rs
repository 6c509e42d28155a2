//! Resident memory of this process, and free memory of the machine, where the system tells them (Linux).

use std::path::Path;

/// The largest resident set in bytes, so far or since [`forget_peak`].
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// The resident set in bytes.
pub fn rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Bytes that can be had without swapping.
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Lets the peak begin anew at what is resident now. Where the system cannot do that, the peak stays that of the process.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn field(file: impl AsRef<Path>, name: &str) -> Option<u64> {
    parse(&std::fs::read_to_string(file).ok()?, name)
}

fn parse(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_in_kibibytes() {
        let text = "Name:\tx\nVmPeak:\t    9 kB\nVmHWM:\t    2048 kB\n";
        assert_eq!(parse(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(parse("Name:\tx\n", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_peak_that_is_forgotten_begins_at_what_is_resident() {
        drop(std::hint::black_box(vec![1_u8; 256 << 20]));
        let before = peak_rss_bytes().unwrap();
        forget_peak();
        let (now, peak) = (rss_bytes().unwrap(), peak_rss_bytes().unwrap());
        assert!(before > 256 << 20 && peak < before, "{before} {peak}");
        assert!(peak.abs_diff(now) < 64 << 20, "{peak} {now}");
    }
}
