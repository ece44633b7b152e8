// SPDX-License-Identifier: Apache-2.0
// What the types promise to the compiler. tests/compile_fail shows what a user sees who goes against it.
#include <larql/checkpoint.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gguf.hpp>
#include <larql/gguf_writer.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/kv_cache.hpp>
#include <larql/mapped_file.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/safetensors.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/weight_reader.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

template <class T>
constexpr bool is_move_only = std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
                              !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;

template <class T>
constexpr bool is_pinned = !std::is_copy_constructible_v<T> && !std::is_move_constructible_v<T> &&
                           !std::is_copy_assignable_v<T> && !std::is_move_assignable_v<T>;

// Each asks whether a File expression, such as `file&` or `file&&`, hands out a view.
template <class File>
concept gives_bytes = requires(File file) { std::forward<File>(file).bytes(); };
template <class File>
concept gives_tensors = requires(File file) { std::forward<File>(file).tensors(); };
template <class File>
concept finds_tensors = requires(File file) { std::forward<File>(file).find_tensor("w"); };
template <class File>
concept gets_tensors = requires(File file) { std::forward<File>(file).at_tensor("w"); };
template <class File>
concept gives_tensor_bytes =
    requires(File file, const larql::tensor_info& info) { std::forward<File>(file).bytes(info); };
template <class File>
concept gives_metadata = requires(File file) { std::forward<File>(file).metadata(); };
template <class File>
concept gives_keys = requires(File file) { std::forward<File>(file).keys(); };
template <class File>
concept finds_values = requires(File file) { std::forward<File>(file).find_value("k"); };

template <class File, class T>
concept finds_values_as = requires(File file) { std::forward<File>(file).template find<T>("k"); };
template <class File, class T>
concept gets_values_as = requires(File file) { std::forward<File>(file).template get<T>("k"); };
template <class File>
concept gives_shard_paths = requires(File file) { std::forward<File>(file).shard_path(0); };

template <class File>
constexpr bool hands_out_any_view = gives_tensors<File> || finds_tensors<File> || gets_tensors<File> ||
                                    gives_tensor_bytes<File> || gives_metadata<File> || gives_shard_paths<File>;
template <class File>
constexpr bool hands_out_every_view = gives_tensors<File> && finds_tensors<File> && gets_tensors<File> &&
                                      gives_tensor_bytes<File> && gives_metadata<File> && gives_shard_paths<File>;

// Views of a checkpoint's memory, one question for each member.
template <class Model>
constexpr int views_of_model() {
    return requires(Model m) { std::forward<Model>(m).tensors(); } +
           requires(Model m, const larql::tensor_info& info) { std::forward<Model>(m).bytes(info); };
}

}  // namespace

TEST_CASE("promises: owners of files move without throwing and are never copied") {
    static_assert(is_move_only<larql::mapped_file>);
    static_assert(is_move_only<larql::gguf_file>);
    static_assert(is_move_only<larql::safetensors_file>);
}

TEST_CASE("promises: files are opened by name, never by conversion from a path") {
    static_assert(!std::is_constructible_v<larql::mapped_file, const char*>);
    static_assert(!std::is_constructible_v<larql::gguf_file, const char*>);
    static_assert(!std::is_constructible_v<larql::safetensors_file, const char*>);
    static_assert(!std::is_default_constructible_v<larql::gguf_file>);
    static_assert(!std::is_default_constructible_v<larql::safetensors_file>);
}

TEST_CASE("promises: no view is handed out by a temporary file") {
    static_assert(gives_bytes<const larql::mapped_file&>);
    static_assert(!gives_bytes<larql::mapped_file>);
    static_assert(!gives_bytes<const larql::mapped_file>);
    static_assert(hands_out_every_view<const larql::gguf_file&>);
    static_assert(!hands_out_any_view<larql::gguf_file>);
    static_assert(!hands_out_any_view<const larql::gguf_file>);
    static_assert((gives_keys<const larql::gguf_file&> && finds_values<const larql::gguf_file&>));
    static_assert(!(gives_keys<larql::gguf_file> || finds_values<larql::gguf_file>));
    static_assert(hands_out_every_view<const larql::safetensors_file&>);
    static_assert(!hands_out_any_view<larql::safetensors_file>);
    static_assert(!hands_out_any_view<const larql::safetensors_file>);
}

TEST_CASE("promises: text of a temporary file is copied, never viewed") {
    using view = std::string_view;
    using views = std::vector<std::vector<std::string_view>>;
    static_assert((finds_values_as<const larql::gguf_file&, view> && gets_values_as<const larql::gguf_file&, views>));
    static_assert(!(finds_values_as<larql::gguf_file, view> || gets_values_as<larql::gguf_file, view>));
    static_assert(!(finds_values_as<larql::gguf_file, views> || gets_values_as<larql::gguf_file, views>));
    static_assert((gets_values_as<larql::gguf_file, std::string> && gets_values_as<larql::gguf_file, int>));
    static_assert(finds_values_as<larql::gguf_file, std::vector<std::string>>);
}

TEST_CASE("promises: a checkpoint is a handle; what a temporary one hands out owns what it needs, or is no view") {
    static_assert(std::is_copy_constructible_v<larql::checkpoint> && std::is_copy_assignable_v<larql::checkpoint>);
    static_assert(views_of_model<const larql::checkpoint&>() == 2);
    static_assert(views_of_model<larql::checkpoint>() == 0);
    using model = larql::checkpoint;
    static_assert(std::is_same_v<decltype(std::declval<model>().config()), larql::model_config>);
    static_assert(std::is_same_v<decltype(std::declval<model&>().config()), const larql::model_config&>);
    static_assert(std::is_same_v<decltype(std::declval<model>().spec(0)), larql::attention_spec>);
    static_assert(std::is_same_v<decltype(std::declval<model>().weights()), larql::weight_reader>);
    static_assert(std::is_same_v<decltype(std::declval<model>().gguf()), std::shared_ptr<const larql::gguf_file>>);
}

template <class File>
constexpr bool is_read_safely =
    std::is_constructible_v<larql::weight_reader, const File&> &&  // which must outlive it
    std::is_constructible_v<larql::weight_reader, std::shared_ptr<const File>> &&
    std::is_constructible_v<larql::weight_reader, File> &&         // which it takes over
    !std::is_constructible_v<larql::weight_reader, const File> &&  // which it cannot take over
    !std::is_convertible_v<const File&, larql::weight_reader> && !std::is_convertible_v<File, larql::weight_reader>;

TEST_CASE("promises: a weight reader owns the temporary or shared file that it is given") {
    static_assert(is_read_safely<larql::gguf_file>);
    static_assert(is_read_safely<larql::safetensors_file>);
    static_assert(std::is_nothrow_move_constructible_v<larql::weight>);
    static_assert(std::is_copy_constructible_v<larql::weight> && std::is_copy_constructible_v<larql::weight_reader>);
}

TEST_CASE("promises: threads stay where they were made, and any executor can be lent") {
    static_assert(is_pinned<larql::thread_pool>);
    static_assert(std::has_virtual_destructor_v<larql::executor>);
    static_assert(std::is_convertible_v<larql::thread_pool*, larql::executor*>);
    static_assert(std::is_convertible_v<larql::serial_executor*, larql::executor*>);
}

TEST_CASE("promises: errors are caught as std::runtime_error") {
    static_assert(std::is_convertible_v<const larql::error&, const std::runtime_error&>);
    static_assert(std::is_nothrow_destructible_v<larql::error>);
    static_assert(noexcept(std::declval<const larql::error&>().code()));
}

TEST_CASE("promises: half-precision numbers are two plain bytes that only widen by themselves") {
    const auto check = []<class T>(T) {
        static_assert((sizeof(T) == 2 && alignof(T) == 2));
        static_assert((std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>));
        static_assert(std::is_convertible_v<T, float>);
        static_assert(!std::is_convertible_v<float, T>);
    };
    check(larql::bf16{});
    check(larql::f16{});
}

TEST_CASE("promises: tensors are row-major, whatever xtensor's default is") {
    static_assert(larql::tensor<float, 3>::static_layout == xt::layout_type::row_major);
    static_assert(std::same_as<decltype(larql::gqa_attention(std::declval<larql::tensor<float, 3>>(),
                                                             std::declval<larql::tensor<larql::bf16, 3>>(),
                                                             std::declval<larql::tensor<larql::bf16, 3>>())),
                               larql::tensor<float, 3>>);
    static_assert(std::is_nothrow_move_constructible_v<larql::attention_scratch>);
}
