// SPDX-License-Identifier: Apache-2.0
//! QEMU's way to write options: `name,key=value,key=value`.

use std::path::Path;

/// One word of options. A comma in a value is written twice.
#[derive(Debug, Clone)]
pub(super) struct Options(String);

impl Options {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(super) fn with(mut self, key: &str, value: impl AsRef<str>) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&value.as_ref().replace(',', ",,"));
        self
    }

    pub(super) fn with_path(self, key: &str, path: &Path) -> Self {
        self.with(key, path.to_string_lossy())
    }

    pub(super) fn word(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_value_is_written_twice_and_begins_no_option() {
        let word = Options::new("socket")
            .with("id", "a")
            .with_path("path", Path::new("/run/a,server=on"))
            .word();
        assert_eq!(word, "socket,id=a,path=/run/a,,server=on");
    }
}
