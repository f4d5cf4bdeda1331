//! Errors of the cache as API Statuses: the one place where storage failures become HTTP.

use apimachinery::gvk::GroupResource;
use apimachinery::status::{Cause, Details, Status};

use crate::cache::Error;

/// What upstream answers for a lost race.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The Status for a failed read or write of one object.
pub fn of_object(error: Error, resource: &GroupResource, name: &str) -> Status {
    match error {
        Error::NotFound { .. } => Status::not_found(resource, name),
        Error::Exists { .. } => Status::already_exists(resource, name),
        Error::Conflict { .. } => Status::conflict(resource, name, MODIFIED),
        other => of_read(other),
    }
}

/// The Status for a failed list or watch.
pub fn of_read(error: Error) -> Status {
    match error {
        Error::TooOld { .. } => Status::expired(error.to_string()),
        Error::TooLarge { .. } => too_large(&error.to_string()),
        Error::ObjectTooLarge(why) => Status::request_entity_too_large(why),
        Error::Unavailable(why) => Status::service_unavailable(why),
        other => Status::internal(other),
    }
}

/// 504 with the cause that clients look for.
pub fn too_large(message: &str) -> Status {
    Status::timeout(message, 1).with_details(Details {
        causes: vec![Cause::new("ResourceVersionTooLarge", "Too large resource version", "")],
        retry_after_seconds: 1,
        ..Details::default()
    })
}

/// A list asked for a revision whose history is gone.
pub fn list_expired() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}

/// A page was asked for too late.
pub fn continue_expired() -> Status {
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
}
