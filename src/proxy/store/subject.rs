//! Connections of subjects over all replicas that share the store: a subject has so many of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::api::route_id::RouteId;
use crate::proxy::store::Store;
use crate::proxy::store::leases::{Subject, scripts};
use crate::reason::Reason;

/// A connection's lease among those of its subject over all replicas, until it is dropped.
pub(crate) struct SubjectLease {
    store: Arc<Store>,
    subject: Subject,
    lease: u64,
    /// The store may know of it.
    told: bool,
}

impl fmt::Debug for SubjectLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectLease").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Drop for SubjectLease {
    fn drop(&mut self) {
        if self.told {
            self.store.leases.release(self.subject, self.lease);
        }
    }
}

impl Store {
    /// One of `limit` leases of a subject (with its issuer) of a route.
    ///
    /// # Errors
    /// [`Reason::SubjectLimit`]: all are taken; [`Reason::StoreUnavailable`]: nobody knows.
    pub(crate) async fn acquire_subject(
        self: &Arc<Self>,
        route: &RouteId,
        identity: &str,
        limit: u32,
    ) -> Result<SubjectLease, Reason> {
        let leases = &self.leases;
        let subject = Subject::new(route, identity);
        let number = leases.next.fetch_add(1, Ordering::Relaxed);
        // From now on: whoever gives up waiting leaves a question behind that may still be answered.
        let mut lease = SubjectLease { store: Arc::clone(self), subject, lease: number, told: true };
        let mut call = scripts().take.key(leases.key(&subject));
        call.arg(leases.member(number)).arg(leases.millis()).arg(limit);
        let taken: u8 = self.ask(route, &call).await?;
        if taken != 1 {
            lease.told = false;
            return Err(Reason::SubjectLimit);
        }
        leases.held().entry(subject).or_default().push(number);
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;

    #[test]
    fn routes_of_two_kinds_and_one_name_have_keys_of_their_own() {
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        assert!(Subject::new(&own, "1:aada") == Subject::new(&own, "1:aada"));
        assert!(Subject::new(&own, "1:aada") != Subject::new(&other, "1:aada"));
    }
}
