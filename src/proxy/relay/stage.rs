//! The stage for content: what a direction does with messages that it must see whole. Nothing of a message goes on before
//! the stage releases it.
//!
//! A direction has a stage only if its route asks for one, so that the plain path pays one comparison per frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::proxy::io::buffers::Masks;
use crate::ws::frame::Opcode;
use crate::ws::hold::Hold;

/// Bytes that all stages of the process hold.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes(AtomicUsize);

impl HeldBytes {
    /// How many there are.
    #[cfg(test)]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One direction's stage: holds each message until it is whole, then releases it unchanged.
#[derive(Debug)]
pub(crate) struct Stage {
    hold: Hold,
    held: Arc<HeldBytes>,
    /// Bytes of `held` that are ours.
    counted: usize,
}

impl Stage {
    /// A stage that holds nothing yet and counts what it holds in `held`.
    pub(crate) fn new(held: Arc<HeldBytes>) -> Box<Self> {
        Box::new(Self { hold: Hold::default(), held, counted: 0 })
    }

    /// Adds a piece of a message's payload. `frame` and `message` tell what ends with it.
    pub(crate) fn push(&mut self, opcode: Opcode, piece: &[u8], frame: bool, message: bool) {
        self.hold.push(opcode, piece, frame, message);
        self.counted += piece.len();
        self.held.0.fetch_add(piece.len(), Ordering::Relaxed);
    }

    /// The whole message, in frames that are ready to be sent; `masked` toward a backend.
    pub(crate) fn release(&mut self, masks: &mut Masks, masked: bool) -> Vec<u8> {
        let mut frames = Vec::with_capacity(self.hold.payload().len() + 16);
        self.hold.release(&mut frames, || masked.then(|| masks.next()));
        self.forget();
        frames
    }

    fn forget(&mut self) {
        self.held.0.fetch_sub(std::mem::take(&mut self.counted), Ordering::Relaxed);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.forget();
    }
}
