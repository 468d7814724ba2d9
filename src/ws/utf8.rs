//! UTF-8 across fragments (RFC 6455 §5.6, §8.1): checked as it streams, failing at the first byte that cannot be right.

/// The state between two pieces of one text: the bytes of a character that was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    cut: [u8; 4],
    have: u8,
}

/// The text is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8 {
    /// The start of a text.
    pub const NEW: Self = Self { cut: [0; 4], have: 0 };

    /// Whether no character is cut: ASCII alone could not be wrong here.
    #[inline]
    pub const fn is_between(&self) -> bool {
        self.have == 0
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`NotUtf8`] as soon as no continuation could make the text valid.
    #[inline]
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.have > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            let have = usize::from(self.have);
            // Four bytes are never an unfinished character, so there is room for one more.
            self.cut[have] = byte;
            piece = rest;
            match std::str::from_utf8(&self.cut[..=have]) {
                Ok(_) => self.have = 0,
                Err(error) if error.error_len().is_none() => self.have += 1,
                Err(_) => return Err(NotUtf8),
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let cut = &piece[error.valid_up_to()..];
                self.cut[..cut.len()].copy_from_slice(cut);
                self.have = cut.len() as u8;
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// Ends the text and is ready for another.
    ///
    /// # Errors
    /// [`NotUtf8`] if it ends within a character.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.have) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_two(text: &[u8], cut: usize) -> Result<(), NotUtf8> {
        let mut utf8 = Utf8::default();
        utf8.feed(&text[..cut])?;
        utf8.feed(&text[cut..])?;
        utf8.finish()
    }

    #[test]
    fn a_text_cut_anywhere_is_judged_as_the_whole() {
        let texts: [&[u8]; 8] = [
            "κόσμε 🦀 €".as_bytes(),
            b"plain",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"ab\xffcd",
            b"\xe2\x82",
            b"\xf0\x9f\xa6",
        ];
        for text in texts {
            let whole = std::str::from_utf8(text).map(|_| ()).map_err(|_| NotUtf8);
            for cut in 0..=text.len() {
                assert_eq!(in_two(text, cut), whole, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_byte_that_cannot_be_right_fails_at_once() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.feed(b"\xf4"), Ok(()));
        assert_eq!(utf8.feed(b"\x90"), Err(NotUtf8));
    }
}
