//! The layers in which a field may be written: the route, then the defaults of the settings. Knows no field.

/// A value with the layer in which it was written, for messages.
#[derive(Debug)]
pub(super) struct Set<'a, T: ?Sized> {
    pub(super) value: &'a T,
    pub(super) layer: &'static str,
}

impl<T: ?Sized> Clone for Set<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Set<'_, T> {}

impl<T: ?Sized> Set<'_, T> {
    /// The whole path of the field `below` the layer.
    pub(super) fn field(&self, below: &str) -> String {
        format!("{}.{below}", self.layer)
    }
}

/// The route's value, else the default's.
pub(super) fn pick<'a, L, T: ?Sized>(
    layers: &Layers<'a, L>,
    get: impl Fn(&'a L) -> Option<&'a T>,
) -> Option<Set<'a, T>> {
    let set = |layer: &'static str| move |value| Set { value, layer };
    layers.route.and_then(&get).map(set("spec")).or_else(|| layers.default.and_then(&get).map(set("defaults")))
}

/// The same part of the route and of the defaults.
pub(super) struct Layers<'a, L> {
    pub(super) route: Option<&'a L>,
    pub(super) default: Option<&'a L>,
}

impl<'a, L> Layers<'a, L> {
    pub(super) fn part<P>(&self, get: impl Fn(&'a L) -> Option<&'a P>) -> Layers<'a, P> {
        Layers { route: self.route.and_then(&get), default: self.default.and_then(&get) }
    }
}
