# Rscript survey.R FOLDER ANSWER.csv: estimates of FOLDER's calls.csv by R's survey package, and the seconds they took.
suppressMessages(library(survey))

arguments <- commandArgs(TRUE)
folder <- arguments[1]
answer <- arguments[2]

read_column <- function(name) {
  file <- function(ending) file.path(folder, paste0(name, ending))
  if (file.exists(file(".double"))) {
    return(readBin(file(".double"), "double", file.size(file(".double")) / 8))
  }
  codes <- readBin(file(".codes"), "integer", file.size(file(".codes")) / 4)
  structure(codes, levels = readLines(file(".labels")), class = "factor")
}

names <- unique(sub("\\.(double|codes|labels)$", "", grep("\\.(double|codes)$", list.files(folder), value = TRUE)))
people <- as.data.frame(sapply(names, read_column, simplify = FALSE))
calls <- read.csv(file.path(folder, "calls.csv"), colClasses = "character")
for (outcome in unique(calls$outcome)) {
  call <- calls[calls$outcome == outcome, ][1, ]
  value <- people[[call$source]]
  if (call$cut != "") value <- as.numeric(if (call$side == ">=") value >= as.numeric(call$cut) else value <= as.numeric(call$cut))
  people[[paste0("outcome.", outcome)]] <- value
}

seconds <- system.time({
  design <- svydesign(ids = ~psu, strata = ~stratum, weights = ~weight, data = people)
  parts <- lapply(seq_len(nrow(calls)), function(number) {
    call <- calls[number, ]
    formula <- reformulate(paste0("outcome.", call$outcome))
    if (call$breakdown == "all") {
      found <- svymean(formula, design, na.rm = TRUE)
      return(data.frame(breakdown = "all", cell = "", outcome = call$outcome, estimate = coef(found)[[1]], se = SE(found)[[1]]))
    }
    by <- strsplit(call$breakdown, "*", fixed = TRUE)[[1]]
    found <- svyby(formula, reformulate(by), design, svymean, na.rm = TRUE)
    cell <- do.call(paste, c(lapply(by, function(name) as.character(found[[name]])), sep = "."))
    data.frame(breakdown = call$breakdown, cell = cell, outcome = call$outcome, estimate = coef(found), se = SE(found))
  })
})[["elapsed"]]

found <- do.call(rbind, parts)
found$estimate <- format(found$estimate, digits = 17)
found$se <- format(found$se, digits = 17)
write.csv(found, answer, row.names = FALSE)
writeLines(format(seconds), sub("csv$", "seconds", answer))
