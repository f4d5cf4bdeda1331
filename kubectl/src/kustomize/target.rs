//! The walk over folders: what each gathers, generates and changes, and what is done at the end.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::Config;
use super::fieldspec::FieldSpec;
use super::kustomization::{COMPONENT, Kustomization, Texts, Var};
use super::loader::Loader;
use super::resource::Resource;
use super::resources::Resources;
use super::{Error, Options, Result, generators, name_reference, transform, vars};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY_OPTION: &str = "managedByLabel";
const ORIGIN_OPTION: &str = "originAnnotations";

/// What has been gathered so far.
#[derive(Default)]
struct Gathered {
    resources: Resources,
    config: Option<Config>,
    vars: Vec<Var>,
}

impl Gathered {
    fn merge_config(&mut self, config: Config) -> Result<()> {
        match &mut self.config {
            Some(known) => known.merge(&config),
            None => {
                self.config = Some(config);
                Ok(())
            }
        }
    }

    fn merge(&mut self, other: Gathered) -> Result<()> {
        self.resources.append_all(other.resources.0)?;
        if let Some(config) = other.config {
            self.merge_config(config)?;
        }
        vars::merge(&mut self.vars, &other.vars)
    }
}

/// One folder.
struct Folder {
    loader: Loader,
    kustomization: Kustomization,
    file: &'static str,
    /// Where it lies, seen from the folder of the command; kept when origins are to be shown.
    origin: Option<PathBuf>,
}

/// Builds the objects of a folder.
///
/// # Errors
/// What is wrong with a file, or between files.
pub fn build(folder: &Path, options: Options, warn: &mut dyn FnMut(&str)) -> Result<Vec<Value>> {
    let loader = Loader::new(folder, options.restriction)?;
    let mut root = Folder::open(loader, None, warn)?;
    let metadata = &root.kustomization.build_metadata;
    let show_origin = metadata.iter().any(|option| option == ORIGIN_OPTION);
    let managed_by = options.managed_by || metadata.iter().any(|option| option == MANAGED_BY_OPTION);
    if let Some(unknown) = metadata.iter().find(|option| ![ORIGIN_OPTION, MANAGED_BY_OPTION].contains(&option.as_str()))
    {
        return Err(Error::new(format!("buildMetadata option {unknown:?} is not supported")));
    }
    if show_origin {
        root.origin = Some(PathBuf::new());
    }
    let mut gathered = root.gather(Gathered::default(), warn)?;
    let config = gathered.config.unwrap_or_default();
    let resources = &mut gathered.resources;
    transform::add_hashes(resources);
    name_reference::mend(resources, &config)?;
    vars::resolve(resources, &gathered.vars, &config, warn)?;
    resources.0.retain(|resource| !resource.is_local());
    transform::sort(resources, root.kustomization.sort_options.as_ref(), options.order)?;
    if managed_by {
        let label: Texts = [(MANAGED_BY.to_owned(), format!("kustomize-{}", super::VERSION))].into();
        let spec = FieldSpec::anywhere("metadata/labels", true);
        for resource in &mut resources.0 {
            let mut labels = resource.texts(&["metadata", "labels"]);
            labels.extend(label.clone());
            spec.apply(&mut resource.object, Some(super::fieldspec::Leaf::Map), &mut |map| {
                *map = json!(labels);
                Ok(())
            })?;
        }
    }
    Ok(gathered.resources.0.into_iter().map(|resource| resource.finish(show_origin)).collect())
}

impl Folder {
    fn open(loader: Loader, origin: Option<PathBuf>, warn: &mut dyn FnMut(&str)) -> Result<Self> {
        let (kustomization, file) = Kustomization::load(&loader, warn)?;
        let folder = Folder { loader, kustomization, file, origin };
        folder.refuse_plugins()?;
        Ok(folder)
    }

    /// What would run programs or read schemas from elsewhere.
    fn refuse_plugins(&self) -> Result<()> {
        let k = &self.kustomization;
        if let Some(chart) = k.helm_charts.iter().chain(&k.helm_chart_inflation_generator).next() {
            return Err(Error::new("must specify --enable-helm").wrap(format!(
                "trouble configuring builtin HelmChartInflationGenerator with config: `\n{}`",
                crate::codec::yaml_text(chart)
            )));
        }
        let openapi = k.openapi.as_ref().is_some_and(|openapi| openapi.contains_key("path"));
        let refused = [
            (!k.generators.is_empty(), "generators"),
            (!k.transformers.is_empty(), "transformers"),
            (!k.validators.is_empty(), "validators"),
            (!k.crds.is_empty(), "crds"),
            (openapi, "openapi"),
        ];
        match refused.into_iter().find(|(used, _)| *used) {
            Some((_, field)) => {
                Err(Error::new(format!("the field '{field}' is not supported: external plugins are disabled")))
            }
            None => Ok(()),
        }
    }

    /// Adds this folder's objects to those of a parent (a component's) or of nobody.
    fn gather(&self, mut into: Gathered, warn: &mut dyn FnMut(&str)) -> Result<Gathered> {
        for path in &self.kustomization.resources {
            self.add_resource(&mut into, path, warn).map_err(|error| error.wrap("accumulating resources"))?;
        }
        into.merge_config(Config::load(&self.loader, &self.kustomization.configurations)?)?;
        self.generate(&mut into.resources)?;
        for path in &self.kustomization.components {
            into = self.add_component(into, path, warn).map_err(|error| error.wrap("accumulating components"))?;
        }
        let config = into.config.take().unwrap_or_default();
        let scope = transform::Scope { kustomization: &self.kustomization, config: &config, loader: &self.loader };
        transform::run(&scope, &mut into.resources)?;
        into.config = Some(config);
        if let Some(vars) = &self.kustomization.vars {
            let merging = |error: Error| error.wrap("merging vars");
            vars::attach(&mut into.resources, vars).map_err(merging)?;
            vars::merge(&mut into.vars, vars).map_err(merging)?;
        }
        Ok(into)
    }

    /// A path that is no file of objects is a folder.
    fn add_resource(&self, into: &mut Gathered, path: &str, warn: &mut dyn FnMut(&str)) -> Result<()> {
        let Err(no_file) = self.add_file(&mut into.resources, path) else { return Ok(()) };
        let folder = match self.loader.at(path) {
            Ok(loader) => self.enter(loader, path, false, Gathered::default(), warn),
            // Malformed YAML is in a file, and what a folder would be is of no interest.
            Err(_) if no_file.0.contains("MalformedYAMLError") => return Err(no_file),
            Err(error) => Err(error),
        };
        folder
            .and_then(|found| {
                into.merge(found).map_err(|error| error.wrap(format!("recursed merging from path '{path}'")))
            })
            .map_err(|error| error.wrap(format!("accumulation err='{no_file}'")))
    }

    fn add_file(&self, into: &mut Resources, path: &str) -> Result<()> {
        let reading = |error: Error| error.wrap(format!("accumulating resources from '{path}'"));
        let mut found = self.loader.text(path).and_then(|text| Resource::parse(&text)).map_err(reading)?;
        if let Some(origin) = &self.origin {
            let text = crate::codec::yaml_text(&json!({"path": origin.join(path).display().to_string()}));
            found.iter_mut().for_each(|resource| resource.origin = Some(text.clone()));
        }
        into.append_all(found).map_err(|error| error.wrap(format!("merging resources from '{path}'")))
    }

    fn add_component(&self, into: Gathered, path: &str, warn: &mut dyn FnMut(&str)) -> Result<Gathered> {
        let loader = self.loader.at(path).map_err(|error| Error::new(format!("loader.New {:?}", error.0)))?;
        self.enter(loader, path, true, into, warn)
            .map_err(|error| Error::new(format!("accumulateDirectory: {:?}", error.0)))
    }

    fn enter(
        &self,
        loader: Loader,
        path: &str,
        component: bool,
        into: Gathered,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Gathered> {
        let root = loader.root().display().to_string();
        let origin = self.origin.as_ref().map(|origin| origin.join(path));
        let folder = Folder::open(loader, origin, warn)
            .map_err(|error| error.wrap(format!("couldn't make target for path '{root}'")))?;
        let kind = &folder.kustomization.kind;
        match (component, kind == COMPONENT) {
            (true, false) => {
                return Err(Error::new(format!("expected kind '{COMPONENT}' for path '{root}' but got '{kind}'")));
            }
            (false, true) => return Err(Error::new(format!("expected kind != '{COMPONENT}' for path '{root}'"))),
            _ => {}
        }
        folder.gather(into, warn).map_err(|error| error.wrap(format!("recursed accumulation of path '{root}'")))
    }

    fn generate(&self, into: &mut Resources) -> Result<()> {
        let k = &self.kustomization;
        let global = k.generator_options.as_ref();
        let maps = k
            .config_map_generator
            .iter()
            .map(|args| (generators::config_map(&self.loader, args, global), "ConfigMapGenerator"));
        let secrets =
            k.secret_generator.iter().map(|args| (generators::secret(&self.loader, args, global), "SecretGenerator"));
        for (made, generator) in maps.chain(secrets) {
            let mut made = made?;
            if let Some(origin) = &self.origin {
                made.origin = Some(format!(
                    "configuredIn: {}\nconfiguredBy:\n  apiVersion: builtin\n  kind: {generator}\n",
                    origin.join(self.file).display()
                ));
            }
            into.absorb(made).map_err(|error| error.wrap("merging from generator"))?;
        }
        Ok(())
    }
}
