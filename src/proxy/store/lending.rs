//! Messages of a subject that replicas borrow: the store has one pace for each route, subject and direction, by its own
//! clock, and says how many may pass now. Messages never wait for a connection: without an answer a replica counts by itself.

use std::sync::Arc;

use futures_util::StreamExt as _;
use redis::Script;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::proxy::limits::borrowed::{Answer, Question};
use crate::proxy::limits::subject_rate::SubjectRate;
use crate::proxy::store::Store;
use crate::proxy::store::leases::Subject;

/// Questions that are on their way at a time.
const ASKING: usize = 256;

/// The algorithm of `policy::rate` for several messages at once, in microseconds: how many pass, and after how long the next
/// one does. ARGV: the time that one message stands for, how far ahead a burst may be, how many are asked for.
const LEND: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local step, ahead, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local pace = tonumber(redis.call('GET', KEYS[1]) or 0)
pace = math.min(math.max(pace, now), now + ahead + step)
local free = math.floor((ahead - (pace - now)) / step) + 1
local granted = math.max(0, math.min(wanted, free))
if granted == 0 then return {0, math.ceil(pace - now - ahead)} end
pace = pace + granted * step
redis.call('SET', KEYS[1], string.format('%.3f', pace), 'PX', math.ceil((pace - now) / 1000) + 1)
return {granted, 0}
";

fn script() -> &'static Script {
    static SCRIPT: std::sync::OnceLock<Script> = std::sync::OnceLock::new();
    SCRIPT.get_or_init(|| Script::new(LEND))
}

/// Asks for what is to be borrowed, until nobody is left who would.
pub(crate) async fn lend(store: Arc<Store>, asked: mpsc::Receiver<Arc<SubjectRate>>) {
    let questions = futures_util::stream::unfold(asked, async |mut asked| Some((asked.recv().await?, asked)));
    questions
        .for_each_concurrent(ASKING, async |rate| {
            if let Some(question) = rate.question() {
                let began = Instant::now();
                let answer = store.borrow(&rate, question).await;
                rate.answered(answer, began.elapsed());
            }
        })
        .await;
}

impl Store {
    async fn borrow(&self, rate: &SubjectRate, question: Question) -> Option<Answer> {
        let (route, identity, from_client) = rate.whose();
        let direction = if from_client { "c" } else { "b" };
        let key = self.leases.pace_key(&Subject::new(route, identity), direction);
        let micros = |nanos: u64| format!("{}.{:03}", nanos / 1000, nanos % 1000);
        let mut call = script().key(key);
        call.arg(micros(question.steps.step)).arg(micros(question.steps.ahead)).arg(question.messages);
        let (granted, wait): (u64, u64) = self.ask(route, &call).await.ok()?;
        Some(Answer { granted, wait: wait.saturating_mul(1000) })
    }
}
