// SPDX-License-Identifier: Apache-2.0
//
// Whether two checkpoints are the same model, as far as larql can tell, in whatever forms, containers, dialects and
// number formats they are stored.
//
// - Configurations agree on everything that changes results.
// - Every attention block gives the same output for the same random hidden states, in the form that each side stores.
// - Every tensor that both sides store for the same purpose has the same numbers: bit for bit where it has the same
//   type on both sides, else within what the types can hold (detail/verify/steps.hpp has the bound of each). This holds
//   within attention too, wherever both sides store the same tensors, so that one changed bit is found that the output
//   does not show.
// - Nothing is on one side only, but what a form, dialect or container does not need.
#ifndef LARQL_VERIFY_HPP
#define LARQL_VERIFY_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/verify/report.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>

namespace larql {

/// What a verification does.
struct verify_options {
    /// Attention blocks [begin, end), and of all other tensors those of the layers that these blocks are in, and those
    /// of no layer.
    std::size_t layer_begin = 0;
    std::size_t layer_end = std::numeric_limits<std::size_t>::max();
    double tolerance = 1e-4;  ///< of a block's context and output, relative to the largest magnitude
    /// This part, from 1, of so many: the work is divided by stored bytes, in the same way on every machine.
    std::size_t part = 1, parts = 1;
    executor* threads = nullptr;  ///< null: threads of its own
    /// Called after each piece of work, by one thread at a time.
    std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)> progress{};
};

/// Compares two checkpoints.
///
/// What differs is in the report, with whatever could not be read on one side. Tensors are matched by role, layer and
/// expert through the names of each side's family, experts that one side stacks with those that the other has apart,
/// and tensors that no name row claims by equal name. Not missed are: factors that a form does not store, frequencies
/// that follow from the configuration, scales of activations, and an output projection that is the embedding. Towers
/// that see or hear, which GGUF has in a file of their own, are listed apart.
///
/// Hidden states are random with a fixed seed, 32 tokens or, where a window, chunk, selection or entry of compressed
/// attention ends within 512 tokens, enough to leave it. Rotation at long positions is compared by its frequencies.
///
/// @throws error what `checkpoint::config` throws; errc::missing_tensor for a configuration without tensors;
///         errc::bad_value for blocks or a part that do not exist
/// @note   A few megabytes for each thread, whatever the size of the model, beside one block's activations. Weights
///         that are stored transposed ([in, out], AWQ, GPTQ) are the exception: see weight_reader.
[[nodiscard]] LARQL_INLINE verify_report verify(const checkpoint& a, const checkpoint& b,
                                                const verify_options& options = {});

/// The SHA-256 of a file, as 64 hexadecimal digits: what `sha256sum` prints.
/// @throws error errc::io, errc::not_a_file; errc::source_changed if the file shrinks meanwhile
[[nodiscard]] LARQL_INLINE std::string file_checksum(const std::filesystem::path& path);

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/verify.hpp>
#endif

#endif
