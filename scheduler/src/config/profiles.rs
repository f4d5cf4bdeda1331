//! Profiles: which plugins serve at which point, by the defaults and by what the configuration changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Config, DEFAULT_SCHEDULER_NAME, Error, invalid};
use crate::framework::Plugin;
use crate::framework::profile::Profile;
use crate::plugins::{DEFAULT, Handle, REGISTRY};

/// Plugins of upstream's that configurations may name although they are not here yet: disabling or
/// configuring them does nothing, enabling them explicitly is an error.
const NOT_YET: &[&str] = &[
    "DynamicResources",
    "GangScheduling",
    "NodeDeclaredFeatures",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeRestrictions",
    "VolumeZone",
];

/// `KubeSchedulerProfile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ProfileConfig {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i64>,
    pub plugins: Option<PluginSets>,
    pub plugin_config: Option<Vec<PluginConfig>>,
}

/// `PluginConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PluginConfig {
    pub name: String,
    pub args: Value,
}

/// `Plugins`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PluginSets {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
}

/// `PluginSet`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PluginSet {
    pub enabled: Vec<PluginRef>,
    pub disabled: Vec<PluginRef>,
}

/// `Plugin`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PluginRef {
    pub name: String,
    pub weight: Option<i64>,
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == name || plugin.name == "*")
    }
}

/// Builds every profile's plugins.
pub fn build_profiles(config: &Config, handle: &Handle) -> Result<Vec<Arc<Profile>>, Error> {
    config.profiles.iter().enumerate().map(|(i, profile)| build_profile(i, profile, handle).map(Arc::new)).collect()
}

fn build_profile(index: usize, config: &ProfileConfig, handle: &Handle) -> Result<Profile, Error> {
    let field = |rest: &str| format!("profiles[{index}].{rest}");
    let empty = PluginSets::default();
    let sets = config.plugins.as_ref().unwrap_or(&empty);
    let mut args: BTreeMap<&str, &Value> = BTreeMap::new();
    for plugin in config.plugin_config.iter().flatten() {
        if args.insert(&plugin.name, &plugin.args).is_some() {
            return Err(invalid(field("pluginConfig"), format!("repeated config for plugin {}", plugin.name)));
        }
    }
    let multi = multi_point(&sets.multi_point);

    // Every plugin named anywhere is built once, whatever number of points it serves.
    let mut built: BTreeMap<String, Plugin> = BTreeMap::new();
    let explicit = all_sets(sets);
    let named = multi
        .iter()
        .map(|(name, _)| name.clone())
        .chain(explicit.iter().flat_map(|set| &set.enabled).map(|plugin| plugin.name.clone()));
    for name in named {
        if built.contains_key(&name) {
            continue;
        }
        let Some((_, factory)) = REGISTRY.iter().find(|(known, _)| *known == name) else {
            let message = if NOT_YET.contains(&name.as_str()) {
                format!("plugin {name:?} is not supported yet")
            } else {
                format!("plugin {name:?} does not exist")
            };
            return Err(invalid(field("plugins"), message));
        };
        let null = Value::Null;
        let plugin = factory(args.get(name.as_str()).copied().unwrap_or(&null), handle)
            .map_err(|message| invalid(field("pluginConfig"), format!("{name}: {message}")))?;
        built.insert(name, plugin);
    }
    for name in args.keys() {
        if !REGISTRY.iter().any(|(known, _)| known == name) && !NOT_YET.contains(name) {
            return Err(invalid(field("pluginConfig"), format!("plugin {name:?} does not exist")));
        }
    }

    let pick = |set: &PluginSet, serves: &dyn Fn(&Plugin) -> bool| order(set, &multi, &built, serves);
    macro_rules! point {
        ($set:expr, $part:ident) => {
            pick(&$set, &|plugin| plugin.$part.is_some())
                .iter()
                .filter_map(|(plugin, _)| Some((plugin.name, plugin.$part.clone()?)))
                .collect()
        };
    }
    let sorts = pick(&sets.queue_sort, &|plugin| plugin.queue_sort.is_some());
    if sorts.len() != 1 {
        return Err(invalid(field("plugins.queueSort"), "exactly one queue sort plugin must be enabled"));
    }
    let score = pick(&sets.score, &|plugin| plugin.score.is_some())
        .iter()
        .filter_map(|(plugin, weight)| {
            Some((plugin.name, if *weight == 0 { 1 } else { *weight }, plugin.score.clone()?))
        })
        .collect();
    Ok(Profile {
        scheduler_name: config.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER_NAME.to_owned()),
        percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
        queue_sort: sorts[0].0.queue_sort.clone(),
        pre_enqueue: point!(sets.pre_enqueue, pre_enqueue),
        pre_filter: point!(sets.pre_filter, pre_filter),
        filter: point!(sets.filter, filter),
        post_filter: point!(sets.post_filter, post_filter),
        pre_score: point!(sets.pre_score, pre_score),
        score,
        reserve: point!(sets.reserve, reserve),
        permit: point!(sets.permit, permit),
        pre_bind: point!(sets.pre_bind, pre_bind),
        bind: point!(sets.bind, bind),
        post_bind: point!(sets.post_bind, post_bind),
        interests: built.values().map(|plugin| (plugin.name, plugin.interests.clone())).collect(),
    })
}

fn all_sets(sets: &PluginSets) -> [&PluginSet; 12] {
    [
        &sets.pre_enqueue,
        &sets.queue_sort,
        &sets.pre_filter,
        &sets.filter,
        &sets.post_filter,
        &sets.pre_score,
        &sets.score,
        &sets.reserve,
        &sets.permit,
        &sets.pre_bind,
        &sets.bind,
        &sets.post_bind,
    ]
}

/// The defaults, with the configured ones in their places or after them.
fn multi_point(custom: &PluginSet) -> Vec<(String, i64)> {
    let mut list: Vec<(String, i64)> = Vec::new();
    for (name, weight) in DEFAULT {
        if custom.disables(name) {
            continue;
        }
        let given = custom.enabled.iter().find(|plugin| plugin.name == *name);
        list.push(((*name).to_owned(), given.map_or(*weight, |plugin| plugin.weight.unwrap_or(0))));
    }
    for plugin in &custom.enabled {
        if !list.iter().any(|(name, _)| *name == plugin.name) {
            list.push((plugin.name.clone(), plugin.weight.unwrap_or(0)));
        }
    }
    list
}

/// One point's plugins: first those named both here and for all points, then those for all points,
/// then those named here alone.
fn order<'a>(
    set: &PluginSet,
    multi: &[(String, i64)],
    built: &'a BTreeMap<String, Plugin>,
    serves: &dyn Fn(&Plugin) -> bool,
) -> Vec<(&'a Plugin, i64)> {
    let in_multi = |name: &str| multi.iter().any(|(known, _)| known == name);
    let here: Vec<(&str, i64)> =
        set.enabled.iter().map(|plugin| (plugin.name.as_str(), plugin.weight.unwrap_or(0))).collect();
    let overriding = here.iter().filter(|(name, _)| in_multi(name)).copied();
    let expanded = multi
        .iter()
        .map(|(name, weight)| (name.as_str(), *weight))
        .filter(|(name, _)| !set.disables(name) && !here.iter().any(|(known, _)| known == name));
    let alone = here.iter().filter(|(name, _)| !in_multi(name)).copied();
    overriding
        .chain(expanded)
        .chain(alone)
        .filter_map(|(name, weight)| Some((built.get(name)?, weight)))
        .filter(|(plugin, _)| serves(plugin))
        .collect()
}
