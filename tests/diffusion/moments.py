"""A step of DPM-Solver as one integral, in place of the papers' formula for each order and form.

With u from 0 at t to 1 at s, all forms are a linear term and one integral of the prediction m:

    x0 form (2211.01095):           x_s = sigma_s / sigma_t x_t + alpha_s I(h, x0)
    its SDE (2211.01095):           x_s = sigma_s / sigma_t e^-h x_t + alpha_s I(2 h, x0)
                                          + sigma_s sqrt(1 - e^-2h) z
    eps form (2206.00927, eq. 3.4): x_s = alpha_s / alpha_t x_t + sigma_s I(-h, eps)

    I(k, m) = integral from 0 to 1 of k exp(-k (1 - u)) m(u) du

With m a polynomial in u, I is a sum of the moments of u.
"""

import math


def moments(k):
    """The integrals from 0 to 1 of k exp(-k (1 - u)) u^j, for j = 0, 1, 2: each by parts from the
    one before."""
    m0 = -math.expm1(-k)
    m1 = 1 - m0 / k
    return m0, m1, 1 - 2 * m1 / k


def polynomial(m, h, lambda_t, history):
    """The coefficients of 1, u, u^2 of the polynomial through the predictions (Newton's form)."""
    if not history:
        return m, 0 * m, 0 * m
    lambda_1, p1 = history[0]
    u1 = (lambda_1 - lambda_t) / h
    d1 = (m - p1) / -u1
    if len(history) == 1:
        return m, d1, 0 * m
    lambda_2, p2 = history[1]
    u2 = (lambda_2 - lambda_t) / h
    d2 = (d1 - (p1 - p2) / (u1 - u2)) / -u2
    return m, d1 - u1 * d2, d2  # m + d1 u + d2 u (u - u1)


def moments_step(solver, x, x0, eps, now, nxt, history, noise):
    """x_s, by the equations above."""
    h = nxt.lambda_ - now.lambda_
    m = eps if solver.form == "eps" else x0
    c0, c1, c2 = polynomial(m, h, now.lambda_, history)
    k = -h if solver.form == "eps" else 2 * h if solver.sde else h
    m0, m1, m2 = moments(k)
    if solver.order == 2 and solver.midpoint:
        integral = m0 * (c0 + c1 / 2)  # m in the middle of the step stands for the whole of it
    else:
        integral = m0 * c0 + m1 * c1 + m2 * c2
    if solver.form == "eps":
        return nxt.alpha / now.alpha * x + nxt.sigma * integral
    x_s = nxt.sigma / now.sigma * x
    if not solver.sde:
        return x_s + nxt.alpha * integral
    spread = nxt.sigma * math.sqrt(1 - math.exp(-2 * h))
    return math.exp(-h) * x_s + nxt.alpha * integral + spread * noise
