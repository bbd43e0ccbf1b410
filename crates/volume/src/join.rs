//! Running several futures of one task together.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Futures that run together, and the results of those that have ended, in the same order.
struct Running<'a, T> {
    futures: Vec<Option<Pin<Box<dyn Future<Output = T> + 'a>>>>,
    results: Vec<Option<T>>,
}

impl<'a, T> Running<'a, T> {
    fn new(futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = T> + 'a>>>) -> Self {
        let futures: Vec<_> = futures.into_iter().map(Some).collect();
        let results = futures.iter().map(|_| None).collect();
        Running { futures, results }
    }

    /// Polls those that have not ended: whether all have now, and whether any of them did.
    fn poll(&mut self, context: &mut Context<'_>) -> (Poll<()>, bool) {
        let (mut all, mut news) = (Poll::Ready(()), false);
        for (slot, result) in self.futures.iter_mut().zip(&mut self.results) {
            if let Some(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => {
                        *result = Some(value);
                        *slot = None;
                        news = true;
                    }
                    Poll::Pending => all = Poll::Pending,
                }
            }
        }
        (all, news)
    }
}

/// Runs all futures together and returns their results in the same order.
pub async fn join_all<'a, T>(
    futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = T> + 'a>>>,
) -> Vec<T> {
    let mut running = Running::new(futures);
    poll_fn(|context| running.poll(context).0).await;
    // Every slot is filled: the future above is ready only when nothing is pending.
    running.results.into_iter().flatten().collect()
}

/// A boxed future, to be given to [`join_all`].
pub fn boxed<'a, T>(future: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(future)
}

/// Runs all futures together until all have ended or `patience` with those that have not is over: `None` is their
/// result, and they are dropped. `patience` looks at the results whenever one more is there, and first at none of them;
/// it says how long to wait from then on, `None` for without end. A patience that it has said already runs on.
pub(crate) async fn join_with_patience<'a, T, S: Future<Output = ()>>(
    futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = T> + 'a>>>,
    patience: impl Fn(&[Option<T>]) -> Option<Duration>,
    sleep: impl Fn(Duration) -> S,
) -> Vec<Option<T>> {
    let mut running = Running::new(futures);
    let mut said = None;
    let mut timer: Option<Pin<Box<S>>> = None;
    let mut first = true;
    poll_fn(|context| {
        let (done, news) = running.poll(context);
        if done.is_ready() {
            return done;
        }
        if std::mem::take(&mut first) || news {
            let now = patience(&running.results);
            if now != said {
                said = now;
                timer = now.map(|duration| Box::pin(sleep(duration)));
            }
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    })
    .await;
    running.results
}
