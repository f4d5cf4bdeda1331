//! kubectl: one file or folder per verb.
