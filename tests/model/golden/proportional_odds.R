# Prints the figures of tests/model/test_proportional_odds.py: R 4, packages MASS and survey.
#   Rscript proportional_odds.R proportional_odds.csv
suppressMessages({library(survey); library(MASS)})
options(digits = 12)
people <- read.csv(commandArgs(trailingOnly = TRUE)[1])
people <- transform(people, y = factor(answer), g1 = as.numeric(group == 1), g2 = as.numeric(group == 2))
people <- transform(people, gt1 = g1 * trait, gt2 = g2 * trait)
model <- y ~ trait + g1 + g2 + gt1 + gt2

plain <- polr(model, data = people, Hess = TRUE, control = list(reltol = 1e-15, maxit = 1000))
print(c(coef(plain), plain$zeta)); print(logLik(plain))

design <- svydesign(~psu, strata = ~stratum, weights = ~weight, data = people, nest = TRUE)
control <- list(reltol = 1e-16, maxit = 2000, ndeps = rep(1e-5, 8))
fit <- svyolr(model, design = design, control = control)
start <- c(fit$coefficients, fit$zeta[1], log(diff(fit$zeta)))
fit <- svyolr(model, design = design, start = start, control = control)
print(c(fit$coefficients, fit$zeta)); print(sqrt(diag(fit$var)))

for (terms in c(~ g1 + g2 + gt1 + gt2, ~ gt1 + gt2)) {
  test <- regTermTest(fit, terms, df = degf(design), method = "WorkingWald", lrt.approximation = "satterthwaite")
  print(c(test$chisq, test$ddf, test$p))
}
