//! Noticing that renet's own plugins are missing. They are never added here: other plugins may do that.

use std::marker::PhantomData;

use bevy::prelude::*;
use tracing::warn;

/// Warns, naming the line to add, when there is a resource `R` in an app without the plugin `P`, which drives it.
///
/// Whether the plugin is there is known once all plugins are, so an app that is never finished (a test that calls
/// `App::update` by hand) is not checked.
pub(crate) struct NeedsPlugin<R, P> {
    resource: &'static str,
    plugin: &'static str,
    types: PhantomData<fn() -> (R, P)>,
}

impl<R: Resource, P: Plugin> NeedsPlugin<R, P> {
    pub(crate) fn new(resource: &'static str, plugin: &'static str) -> Self {
        Self {
            resource,
            plugin,
            types: PhantomData,
        }
    }
}

impl<R: Resource, P: Plugin> Plugin for NeedsPlugin<R, P> {
    fn build(&self, _: &mut App) {}

    fn finish(&self, app: &mut App) {
        if app.is_plugin_added::<P>() {
            return;
        }
        let Self { resource, plugin, .. } = *self;
        let complain = move || {
            warn!(
                "there is a `{resource}` and no `{plugin}`, so it does nothing: add `app.add_plugins({plugin})`"
            );
        };
        if app.world().contains_resource::<R>() {
            complain();
        }
        app.add_observer(move |_: On<Insert, R>| complain());
    }
}
