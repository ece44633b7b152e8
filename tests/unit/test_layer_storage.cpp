// SPDX-License-Identifier: Apache-2.0
//
// Layers of checkpoints over weights that stand in files, maps and memory: the same results, what they keep alive, and
// what a decode loop takes.
#include <larql/checkpoint.hpp>
#include <support/files.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <optional>
#include <string>

namespace {

std::atomic<std::size_t> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
    ++allocations;
    void* const memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

// Every allocation of this program through new.
void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return counted(size, std::max(static_cast<std::size_t>(alignment), alignof(std::max_align_t)));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc((++allocations, size)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using larql::attention_form;
using larql::checkpoint;
using larql::errc;
using larql::latent_factors;
using larql::weight_storage;
using larql::testing::relative_error;
using larql::testing::temporary_folder;
using matrix = larql::tensor<float, 2>;

const std::filesystem::path data = LARQL_TEST_DATA;

constexpr weight_storage storages[] = {weight_storage::from_file, weight_storage::mapped, weight_storage::copied,
                                       weight_storage::decoded};

struct stored_model {
    const char* path;
    const char* reference;  ///< folder of hf
    double tolerance;
    latent_factors latent_from = latent_factors::folded;  ///< where there is a latent form
};

constexpr stored_model models[] = {
    {"hf/deepseek_v3", "deepseek_v3", 1e-5, latent_factors::kv_b},
    {"hf/deepseek_v3_fp8", "deepseek_v3_fp8", 1e-5, latent_factors::kv_b},
    {"hf/deepseek_v3_bias", "deepseek_v3_bias", 1e-5, latent_factors::kv_b},
    {"hf/deepseek_v2_lite", "deepseek_v2_lite", 1e-5, latent_factors::kv_b},
    {"gguf/deepseek_v3-bf16.gguf", "deepseek_v3", 1e-5, latent_factors::split},
    {"gguf/deepseek_v3-old-f16.gguf", "deepseek_v3", 1e-2, latent_factors::kv_b},  // rounded to f16
    {"hf/llama3", "llama3", 1e-5},
    {"hf/phi3", "phi3", 1e-5},  // one tensor for q, k and v
    {"hf/gpt2", "gpt2", 1e-5},  // stored [in, out]
};

larql::safetensors_file reference_of(const stored_model& model) {
    return larql::safetensors_file::open(data / "hf" / model.reference / "reference.safetensors");
}

/// The model in a folder of its own, so that its files can be spoiled.
std::filesystem::path copy_of(const stored_model& model, const temporary_folder& folder) {
    const auto from = data / model.path, to = folder / from.filename();
    std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
    return to;
}

/// Cuts every file of a model off, in place: the same files, shorter.
void cut(const std::filesystem::path& path) {
    if (std::filesystem::is_regular_file(path)) return std::filesystem::resize_file(path, 32);
    for (const auto& entry : std::filesystem::directory_iterator(path)) std::filesystem::resize_file(entry.path(), 32);
}

matrix token_of(const matrix& hidden, std::size_t t) {
    auto token = matrix::from_shape({1, hidden.shape(1)});
    std::copy_n(hidden.data() + t * hidden.shape(1), hidden.shape(1), token.data());
    return token;
}

}  // namespace

TEST_CASE("layer storage: every form computes the same from files, maps and memory") {
    for (const stored_model& stored : models) {
        CAPTURE(stored.path);
        const auto reference = reference_of(stored);
        const auto model = checkpoint::open(data / stored.path);
        const auto hidden = reference.read<2>("layer0.hidden"), want = reference.read<2>("layer0.out");
        const std::size_t tokens = hidden.shape(0);
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            if (!why_not(model.spec(0), form).empty()) continue;
            CAPTURE(larql::to_string(form));
            for (const weight_storage storage : storages) {
                CAPTURE(static_cast<int>(storage));
                const auto layer = model.attention(0, form, {.storage = storage});
                CHECK(layer.spec().latent_from ==
                      (form == attention_form::latent ? stored.latent_from : latent_factors::folded));
                CHECK(relative_error(layer.forward(hidden).out, want) < stored.tolerance);  // many tokens

                if (depends_on_length(layer.spec().rope)) continue;  // a cache keeps what a shorter sequence made
                auto cache = layer.make_cache(tokens);               // and few tokens
                larql::attention_result<float> r;
                larql::attention_workspace<float> memory;
                auto got = matrix::from_shape({tokens, want.shape(1)});
                for (std::size_t t = 0; t < tokens; ++t) {
                    layer.forward_into(token_of(hidden, t), cache, r, memory);
                    std::copy_n(r.out.data(), r.out.size(), got.data() + t * want.shape(1));
                }
                CHECK(relative_error(got, want) < stored.tolerance);
            }
        }
    }
}

TEST_CASE("layer storage: a layer outlives its checkpoint, and one in memory also the files") {
    const stored_model& stored = models[0];
    const auto reference = reference_of(stored);
    const auto hidden = reference.read<2>("layer1.hidden"), want = reference.read<2>("layer1.out");
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent})
        for (const weight_storage storage : storages) {
            CAPTURE(larql::to_string(form));
            CAPTURE(static_cast<int>(storage));
            const temporary_folder folder;
            const auto path = copy_of(stored, folder);
            const auto layer = [&] { return checkpoint::open(path).attention(1, form, {.storage = storage}); }();
            CHECK(relative_error(layer.forward(hidden).out, want) < 1e-5);
            const bool maps = storage == weight_storage::mapped;
            if (maps)
                std::filesystem::remove_all(path);  // cut off, what is gone of a map raises a signal
            else
                cut(path);
            if (storage == weight_storage::from_file)
                LARQL_CHECK_ERROR(layer.forward(hidden), errc::source_changed, "");
            else
                CHECK(relative_error(layer.forward(hidden).out, want) < 1e-5);
        }
}

TEST_CASE("layer storage: a decode loop allocates nothing and asks no file") {
    larql::thread_pool pool(2);
    larql::serial_executor serial;
    for (const stored_model& stored : models) {
        CAPTURE(stored.path);
        const auto hidden = reference_of(stored).read<2>("layer0.hidden");
        for (const attention_form form : {attention_form::factored, attention_form::latent})
            for (const weight_storage storage : {weight_storage::mapped, weight_storage::copied})
                for (larql::executor* threads :
                     {static_cast<larql::executor*>(&pool), static_cast<larql::executor*>(&serial)})
                    for (const std::size_t at_once : {std::size_t{1}, std::size_t{3}}) {
                        const temporary_folder folder;
                        const auto path = copy_of(stored, folder);
                        const auto model = checkpoint::open(path);
                        if (!why_not(model.spec(0), form).empty() || depends_on_length(model.spec(0).rope)) continue;
                        const bool joins =
                            form == attention_form::factored && stored.latent_from == latent_factors::split;
                        if (joins) continue;  // a kv_b is made of k_b and v_b, a few rows at a time
                        CAPTURE(larql::to_string(form));
                        const auto layer = model.attention(0, form, {.storage = storage});
                        std::filesystem::remove_all(path);
                        auto cache = layer.make_cache<larql::f16>(64);
                        larql::attention_result<float> r;
                        larql::attention_workspace<float> memory;
                        matrix token = matrix::from_shape({at_once, hidden.shape(1)});
                        std::copy_n(hidden.data(), token.size(), token.data());
                        const auto step = [&] { layer.forward_into(token, cache, r, memory, {.threads = threads}); };
                        for (int warm = 0; warm < 2; ++warm) step();
                        const std::size_t before = allocations;
                        for (int i = 0; i < 8; ++i) step();
                        CHECK(allocations - before == 0);
                    }
    }
}
