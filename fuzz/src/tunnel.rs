//! The first bytes of a direction: where frames are cut changes no verdict, and what was decided stays decided.

use wssgate::content::tunnel::{Verdict, Watch};

/// Byte 0: the size of pieces, less one. Then a message.
pub fn check(data: &[u8]) {
    let Some((&size, message)) = data.split_first() else { return };
    let whole = Watch::default().read(message, true);
    let (mut watch, mut cut) = (Watch::default(), Verdict::Undecided);
    for piece in message.chunks(usize::from(size) + 1) {
        if cut == Verdict::Undecided {
            cut = watch.read(piece, false);
        }
    }
    if cut == Verdict::Undecided {
        cut = watch.read(&[], true);
    }
    assert_eq!(cut, whole, "the cut changed the verdict");
    // JSON is never a tunnel.
    if serde_json::from_slice::<serde_json::Value>(message).is_ok() {
        assert!(!matches!(whole, Verdict::Found(_)), "a JSON document is taken for {whole:?}");
    }
}
