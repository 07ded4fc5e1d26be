//! One network a line.

use super::Reading;

pub(super) fn read(text: &str, reading: &mut Reading) {
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split(['#', ';']).next().unwrap_or(line).trim();
        if !entry.is_empty() {
            reading.take(number, entry, None, None);
        }
    }
}
