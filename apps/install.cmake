# Where a package would put things: programs, man pages, shell completions, documents.
# Completions are written at build time by the programs themselves, from their option tables.
function(ds_install_app binary)
  set(folder ${CMAKE_BINARY_DIR}/completions)
  set(outputs)
  foreach(shell bash zsh fish)
    list(APPEND outputs ${folder}/${binary}.${shell})
  endforeach()
  add_custom_command(OUTPUT ${outputs}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    COMMAND ${binary} --dump-completion bash > ${folder}/${binary}.bash
    COMMAND ${binary} --dump-completion zsh > ${folder}/${binary}.zsh
    COMMAND ${binary} --dump-completion fish > ${folder}/${binary}.fish
    DEPENDS ${binary} VERBATIM COMMENT "Writing completions of ${binary}")
  add_custom_target(${binary}-completions ALL DEPENDS ${outputs})

  install(TARGETS ${binary} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${folder}/${binary}.bash RENAME ${binary}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${folder}/${binary}.zsh RENAME _${binary} DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
  install(FILES ${folder}/${binary}.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  install(FILES ${PROJECT_SOURCE_DIR}/man/${binary}.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endfunction()

install(FILES ${PROJECT_SOURCE_DIR}/man/ds-design.7 ${PROJECT_SOURCE_DIR}/man/ds-ops.7 DESTINATION ${CMAKE_INSTALL_MANDIR}/man7)
file(GLOB schemas CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/man/*.schema.json)
install(FILES ${schemas} ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md ${PROJECT_SOURCE_DIR}/LICENSE
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/ds)
