//! placeholder, replaced soon
