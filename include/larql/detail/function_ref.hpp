// SPDX-License-Identifier: Apache-2.0
#ifndef LARQL_DETAIL_FUNCTION_REF_HPP
#define LARQL_DETAIL_FUNCTION_REF_HPP

#include <larql/detail/language.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace larql::detail {

template <class Signature>
class function_ref;

/// A reference to a callable. It does not own: valid while the callable lives, so use it for parameters only.
template <class R, class... Args>
class function_ref<R(Args...)> {
public:
    template <class F>
        requires(!std::is_same_v<std::remove_cvref_t<F>, function_ref> && std::is_invocable_r_v<R, F&, Args...>)
    function_ref(F&& f) noexcept  // NOLINT(google-explicit-constructor): a parameter type, like std::string_view
        : m_object(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
          m_call([](void* object, Args... args) -> R {
              return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
          }) {}

    R operator()(Args... args) const { return m_call(m_object, std::forward<Args>(args)...); }

private:
    void* m_object;
    R (*m_call)(void*, Args...);
};

}  // namespace larql::detail

#endif
